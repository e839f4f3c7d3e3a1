"""Brings a copy of a graph into the form that the walk reads: constants stored, names unique, ranks known."""

from onnx_ir.passes.common import LiftConstantsToInitializersPass

from worker.engine.graph.edit import Editor
from worker.engine.graph.graph import Graph


def prepare(graph: Graph) -> Graph:
    """A copy with constants stored, not made by nodes, and no name twice, bodies included."""
    prepared = graph.clone()
    LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(prepared.model)
    _rename_twins(prepared)
    prepared.infer_shapes()
    return prepared


def _rename_twins(graph: Graph) -> None:
    """Branches of an If may use a name each: then the second is renamed."""
    editor, seen, nodes = Editor(graph), set[str](), set[str]()
    for each in graph.model.graphs():
        made = (value for node in each for value in node.outputs if value.name)
        for value in [*each.inputs, *(v for v in each.initializers.values() if not v.is_graph_input()), *made]:
            if value.name in seen:
                value.name = editor.free_name(value.name or "")
            seen.add(value.name or "")
    for node in graph.nodes():
        if node.name in nodes:
            node.name = editor.free_name(node.name or node.op_type)
        nodes.add(node.name or "")
