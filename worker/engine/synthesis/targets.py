"""What a graph tells of the tensors inside it: stored statistics, or else how layers behave. Nothing runs here.

A BatchNormalization stores the mean and variance of its input, seen over all of training. Where an exporter folded it
into the convolution before, both are gone. What remains is that the output of a layer with a bias is, give or take,
spread around zero on the inputs it was trained on. On others, channels move to one side, the more so the deeper.
LayerNormalization tells nothing of its input: whatever comes in, it goes out with mean 0 and variance 1.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.session import Array

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_CHANNELS = {"Conv": 1, "ConvTranspose": 1, "FusedConv": 1, "Gemm": -1, "MatMul": -1}
"""The axis of a layer's output that holds its channels."""
_EPSILON = 1e-5
_BATCH_NORM_INPUTS = 5


@dataclass(frozen=True)
class Target:
    """A tensor by name, with its channel axis. `stored` is mean and variance [C]; None: spread around zero."""

    tensor: str
    axis: int
    stored: tuple[Array, Array] | None = None


def find_targets(graph: Graph) -> list[Target]:
    """Inputs of BatchNormalization, then outputs of layers that none of them reads; in bodies too.

    A tensor whose name another one in a body shares is left out, and so are outputs of the graph.
    """
    names = Counter(value.name for node in graph.nodes() for value in node.outputs)
    names.update(value.name for value in graph.model.graph.inputs)
    found: dict[str, Target] = {}
    for target in (*_stored(graph), *_centred(graph)):
        if names[target.tensor] == 1:
            found.setdefault(target.tensor, target)
    return list(found.values())


def _stored(graph: Graph) -> Iterator[Target]:
    for node in graph.nodes():
        if node.op_type != "BatchNormalization" or len(node.inputs) != _BATCH_NORM_INPUTS:
            continue
        source, (mean, variance) = node.inputs[0], map(_stored_numbers, node.inputs[3:])
        if source is None or not source.name or mean is None or variance is None:
            continue
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else _EPSILON
        if np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all():
            yield Target(source.name, 1, (mean, variance + np.float32(epsilon)))


def _stored_numbers(value: ir.Value | None) -> Array | None:
    """What an initializer stores; None for what is computed or fed."""
    is_stored = value is not None and value.is_initializer() and not value.is_graph_input()
    return value.const_value.numpy().astype(np.float32) if is_stored and value and value.const_value else None


def _centred(graph: Graph) -> Iterator[Target]:
    for layer in graph.layers():
        if layer.op in _CHANNELS and trace_weight(layer.node.inputs[1]) is not None:
            value = _with_bias(layer)
            if value.name and value.dtype in _FLOATS and not value.is_graph_output():
                yield Target(value.name, _CHANNELS[layer.op])


def _with_bias(layer: Layer) -> ir.Value:
    """The output of `layer`, or of the Add that alone reads it and gives it a bias."""
    value = layer.node.outputs[0]
    readers = [node for node, _ in value.uses()]
    if layer.op != "MatMul" or len(readers) != 1 or readers[0].op_type != "Add":
        return value
    return readers[0].outputs[0] if any(trace_weight(each) for each in readers[0].inputs) else value
