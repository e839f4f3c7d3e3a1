"""Which weights of a module belong to which layers: for those that move, and those that may be sparse."""

from collections.abc import Collection, Iterator

import onnx_ir as ir

from worker.engine.graph import Graph


def weights_read_by(graph: Graph, nodes: Collection[str]) -> set[str]:
    """Names of the initializers that nodes of these names read, also through nodes that compute from constants only."""
    return {name for node in graph.nodes() if node.name in nodes for name in _constants(node)}


def weights_of_layers(graph: Graph) -> set[str]:
    """Names of the initializers that layers multiply by: no biases, no scales."""
    return {weight.name or "" for layer in graph.layers() for weight in layer.weights}


def initializer_of(parameter: str) -> str:
    """The name in the graph of a parameter that may be parametrized."""
    path, marker, rest = parameter.partition("parametrizations.")
    return f"{path}{rest.rpartition('.original')[0]}" if marker else parameter


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
