"""Pass: a ReduceMean over all spatial axes becomes a GlobalAveragePool, which has an integer kernel."""

import onnx_ir as ir

from worker.engine.graph.edit import Editor
from worker.engine.graph.graph import Graph
from worker.engine.wording import counted

_FIRST_SPATIAL, _LOWEST_RANK = 2, 3


def pool_means(graph: Graph) -> list[str]:
    """Replace every mean over axes 2 and up of a tensor [N, C, ...]; shapes must have been inferred."""
    editor, pooled = Editor(graph), 0
    for node in list(graph.nodes()):
        if _is_spatial_mean(graph, node):
            _pool(editor, node)
            pooled += 1
    return [f"made {counted(pooled, 'spatial mean')} a GlobalAveragePool"] if pooled else []


def _is_spatial_mean(graph: Graph, node: ir.Node) -> bool:
    data = node.inputs[0] if node.inputs else None
    if node.op_type != "ReduceMean" or node.domain or data is None or data.shape is None:
        return False
    rank, axes = data.shape.rank(), _axes(graph, node)
    if rank < _LOWEST_RANK or axes is None or data.dtype != ir.DataType.FLOAT:
        return False
    return sorted(axis % rank for axis in axes) == list(range(_FIRST_SPATIAL, rank))


def _axes(graph: Graph, node: ir.Node) -> list[int] | None:
    """The constant axes, an input since opset 18 and an attribute before; None for all or computed ones."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    given = node.inputs[1] if len(node.inputs) > 1 else None
    return [int(axis) for axis in graph.array(given)] if given is not None and given.is_initializer() else None


def _pool(editor: Editor, node: ir.Node) -> None:
    name = node.outputs[0].name or "mean"
    keeps = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    chain = [editor.node("GlobalAveragePool", [node.inputs[0]], [f"{name}_pooled"])]
    if not keeps:
        chain.append(editor.node("Flatten", chain[0].outputs, [f"{name}_flat"], [ir.AttrInt64("axis", 1)]))
    chain[-1].outputs[0].type, chain[-1].outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    editor.replace(node, chain, chain[-1].outputs)
