"""Pass: nodes and initializers that reach no output go."""

from onnx_ir.passes import common

from worker.engine.graph.graph import Graph


def remove_dead(graph: Graph) -> list[str]:
    """Remove what nothing reads, in bodies too. Inputs and outputs stay."""
    common.RemoveUnusedNodesPass()(graph.model)
    for body in list(graph.model.graphs()):
        for name, value in list(body.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del body.initializers[name]
    return []
