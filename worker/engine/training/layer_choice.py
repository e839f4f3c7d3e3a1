"""Which weights move where `include` and `exclude` name layers: all that the chosen layers read, and nothing else."""

from collections.abc import Collection, Iterator

import onnx_ir as ir

from worker.engine.graph import Graph


def weights_read_by(graph: Graph, nodes: Collection[str]) -> set[str]:
    """Names of the initializers that nodes of these names read, also through nodes that compute from constants only."""
    return {name for node in graph.nodes() if node.name in nodes for name in _constants(node)}


def _constants(node: ir.Node) -> Iterator[str]:
    for value in node.inputs:
        if value is not None and _is_constant(value):
            yield from _initializers(value)


def _is_constant(value: ir.Value) -> bool:
    if value.is_initializer():
        return True
    producer = value.producer()
    return (
        producer is not None
        and any(each is not None for each in producer.inputs)
        and all(each is None or _is_constant(each) for each in producer.inputs)
    )


def _initializers(value: ir.Value) -> Iterator[str]:
    producer = value.producer()
    if producer is None:
        yield value.name or ""
        return
    for each in producer.inputs:
        if each is not None:
            yield from _initializers(each)
