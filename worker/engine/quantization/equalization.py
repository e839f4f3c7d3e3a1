"""Equalizes neighbouring convolutions and linear layers of a graph. It computes the same; its ranges are more alike.

Between two layers may stand what commutes with a positive scale for each channel, such as Relu and pooling.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.quantization.nodes import attribute
from worker.engine.session import Array
from worker.engine.tensors.equalization import balancing_scales
from worker.engine.wording import counted

_COMMUTING = frozenset({"AveragePool", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
_MOST_ROUNDS, _CHANGE = 20, 1e-3
"""Rounds over all pairs, and the largest relative change of a scale at which they end."""
_LINEAR = frozenset({"Conv", "Gemm"})


@dataclass(frozen=True)
class _Pair:
    """Two layers of which only the second reads the first."""

    first: ir.Node
    second: ir.Node


def equalize(graph: Graph) -> list[str]:
    """Equalize every pair, over and over until scales stay. Gives a note, none where there is no pair."""
    pairs = list(_pairs(graph))
    arrays = {
        value: graph.array(value).astype(np.float64)
        for pair in pairs
        for node in (pair.first, pair.second)
        for value in node.inputs[1:3]
        if value is not None
    }
    for _ in range(_MOST_ROUNDS):
        if max((_balance(pair, arrays) for pair in pairs), default=0.0) < _CHANGE:
            break
    for value, array in arrays.items():
        graph.set_array(value, array.astype(np.float32))
    return [f"equalized {counted(len(pairs), 'pair')} of layers"] if pairs else []


def _pairs(graph: Graph) -> Iterator[_Pair]:
    for node in graph.model.graph:
        if not _is_scalable(node):
            continue
        reader = _only_reader_of(node.outputs[0])
        while reader is not None and reader.op_type in _COMMUTING:
            reader = _only_reader_of(reader.outputs[0])
        if reader is not None and _is_scalable(reader) and _channels_fit(node, reader):
            yield _Pair(node, reader)


def _only_reader_of(value: ir.Value) -> ir.Node | None:
    """The node that alone reads `value`, as its first input; None where there is no such node."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node, index = next(iter(uses))
    return node if index == 0 else None


def _is_scalable(node: ir.Node) -> bool:
    """Whether its weights are float32 constants that no other node reads, and scale with its channels."""
    if node.op_type not in _LINEAR or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Gemm" and (attribute(node, "transA", 0) or attribute(node, "beta", 1) != 1):
        return False
    stored = [value for value in node.inputs[1:3] if value is not None]
    is_grouped = node.op_type == "Conv" and attribute(node, "group", 1) > 1
    return all(
        value.is_initializer() and value.dtype == ir.DataType.FLOAT and len(value.uses()) == 1 for value in stored
    ) and (not is_grouped or _is_depthwise(node))


def _is_depthwise(node: ir.Node) -> bool:
    weight = node.inputs[1]
    shape = weight.shape.numpy() if weight is not None and weight.shape is not None else ()
    return bool(shape) and shape[1] == 1 and shape[0] == attribute(node, "group", 1)


def _channels_fit(first: ir.Node, second: ir.Node) -> bool:
    """Whether outputs of the first are inputs of the second, channel by channel."""
    sizes = []
    for node, axis in ((first, _output_axis(first)), (second, _input_axis(second))):
        weight = node.inputs[1]
        sizes.append(weight.shape[axis] if weight is not None and weight.shape is not None else None)
    bias = _bias(first)
    has_own_bias = bias is None or (bias.shape is not None and tuple(bias.shape.numpy()) == (sizes[0],))
    return sizes[0] is not None and sizes[0] == sizes[1] and has_own_bias and first.op_type == second.op_type


def _bias(node: ir.Node) -> ir.Value | None:
    return next(iter(node.inputs[2:]), None)


def _output_axis(node: ir.Node) -> int:
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def _input_axis(node: ir.Node) -> int:
    """Of a depthwise convolution the output channels: each is its own input."""
    if node.op_type == "Conv":
        return 0 if attribute(node, "group", 1) > 1 else 1
    return 1 if attribute(node, "transB", 0) else 0


def _balance(pair: _Pair, arrays: dict[ir.Value, Array]) -> float:
    """Balance one pair in place; gives the largest relative change of a channel."""
    before, after = pair.first.inputs[1], pair.second.inputs[1]
    if before is None or after is None:
        return 0.0
    axes = _output_axis(pair.first), _input_axis(pair.second)
    scales = balancing_scales(_ranges(arrays[before], axes[0]), _ranges(arrays[after], axes[1]))
    arrays[before] /= _along(scales, arrays[before].ndim, axes[0])
    arrays[after] *= _along(scales, arrays[after].ndim, axes[1])
    bias = _bias(pair.first)
    if bias is not None:
        arrays[bias] /= scales
    return float(np.abs(scales - 1).max(initial=0))


def _ranges(array: Array, axis: int) -> Array:
    largest: Array = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis), initial=0)
    return largest


def _along(scales: Array, rank: int, axis: int) -> Array:
    return scales.reshape([-1 if i == axis else 1 for i in range(rank)])
