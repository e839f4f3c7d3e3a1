"""Rules of linear layers and normalizations: where a scale can begin and end.

Legend: I input channels, O output channels, G groups, K elements summed over, N outputs of a matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph.layers import trace_weight
from worker.engine.graph.shapes import dims, sizes
from worker.engine.quantization.folding.between import matrix_product
from worker.engine.quantization.folding.flow import Flow, Reading, Rule
from worker.engine.quantization.folding.labels import Labels, across, along
from worker.engine.quantization.folding.operands import is_given, rank_of
from worker.engine.quantization.nodes import attribute

_BIAS, _MATRIX = 2, 2


def _conv(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """The weight is [O, I / G, ...], or [I, O / G, ...] if transposed."""
    weight = node.inputs[1]
    shape = sizes(weight)
    if weight is None or shape is None or not flow.may_scale(weight):
        return None
    rank, groups, transposed = len(shape), int(attribute(node, "group", 1)), node.op_type == "ConvTranspose"
    inputs, outputs = (shape[0], shape[1] * groups) if transposed else (shape[1] * groups, shape[0])
    read = along(flow.of(node.inputs[0]), 1 - rank, inputs)
    if read is None:
        return None
    written = flow.fresh(outputs)
    first, second = (read, written) if transposed else (written, read)
    labels = [across(first, 0, rank), _of_groups(second, shape[0], groups, rank)]
    reads, writes = labels if transposed else labels[::-1]
    if not flow.scale(weight, reads=reads, writes=writes, is_weight=True):
        return None
    _finish(flow, node, 1 - rank, read, written)
    return [across(written, 1, rank)]


def _of_groups(labels: Labels, rows: int, groups: int, rank: int) -> Labels:
    """Labels of a weight's second axis, which counts the channels of one group: the rows differ from group to group."""
    table = labels.reshape(groups, -1)
    if groups > 1:
        table = np.repeat(table, rows // groups, axis=0)
    return table.reshape(table.shape + (1,) * (rank - 2))


def _gemm(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    return None if attribute(node, "transA", 0) else _matrix(flow, node, flipped=bool(attribute(node, "transB", 0)))


def _matmul(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    return _matrix(flow, node, flipped=False) or matrix_product(flow, node)


def _matrix(flow: Flow, node: ir.Node, *, flipped: bool) -> Sequence[Labels] | None:
    """The second input is [K, N], or [N, K] if flipped; it may come through a Transpose."""
    traced = _own_weight(flow, node.inputs[1])
    if traced is None:
        return None
    weight, order = traced
    if flipped:
        order = order[::-1]
    shape = weight.shape.numpy() if weight.shape is not None else ()
    read = along(flow.of(node.inputs[0]), -1, shape[order[0]])
    if read is None:
        return None
    written = flow.fresh(shape[order[1]])
    reads, writes = (across(labels, order[place], _MATRIX) for place, labels in enumerate((read, written)))
    if not flow.scale(weight, reads=reads, writes=writes, is_weight=True):
        return None
    _finish(flow, node, -1, read, written)
    return [written]


def _own_weight(flow: Flow, value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """The matrix behind `value`, through Transposes that it alone passes, with the order of its axes."""
    traced = trace_weight(value)
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or node.op_type != "Transpose" or len(value.uses()) != 1 or value.is_graph_output():
            return None
        value = node.inputs[0]
    return traced if traced and len(traced[1]) == _MATRIX and flow.may_scale(traced[0]) else None


def _finish(flow: Flow, node: ir.Node, axis: int, read: Labels, written: Labels) -> None:
    """Note what the layer reads; fold the scales of its output into its bias, or fix them where it forbids that."""
    if node.inputs[0] is not None:
        flow.readings.append(Reading(node.inputs[0], axis, read))
    bias = node.inputs[_BIAS] if is_given(node, _BIAS) else None
    if bias is not None and not flow.scale(bias, writes=written):
        flow.fix(written)


@dataclass(frozen=True)
class _Gains:
    """Which inputs of a normalization are its gain and shift, and whether they count the channels of axis 1."""

    gain: int
    shift: int | None
    of_axis_one: bool = False


_NORMALIZATIONS: Mapping[str, _Gains] = {
    "BatchNormalization": _Gains(1, 2, of_axis_one=True),
    "GroupNormalization": _Gains(1, 2, of_axis_one=True),
    "InstanceNormalization": _Gains(1, 2, of_axis_one=True),
    "LayerNormalization": _Gains(1, 2),
    "RMSNormalization": _Gains(1, None),
    "SimplifiedLayerNormalization": _Gains(1, None),
    "SkipLayerNormalization": _Gains(2, 3),
    "SkipSimplifiedLayerNormalization": _Gains(2, None),
}


def _normalization(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """What is normalized is fixed; the result has a scale of its own for each element of the gain."""
    gains = _NORMALIZATIONS[node.op_type]
    gain = node.inputs[gains.gain]
    shift = node.inputs[gains.shift] if gains.shift is not None and is_given(node, gains.shift) else None
    shape, rank, before = sizes(gain), rank_of(node.inputs[0]), dims(node.inputs[0])
    for value in node.inputs:
        flow.fix(flow.of(value))
    if gain is None or shape is None or rank is None or before is None or attribute(node, "training_mode", 0):
        return None
    if not flow.may_scale(gain) or (shift is not None and not flow.may_scale(shift)):
        return None
    if gains.of_axis_one and (rank < _MATRIX or before[1] != shape[0]):
        return None  # up to opset 20 GroupNormalization has a gain for each group
    labels = flow.fresh(int(np.prod(shape))).reshape(shape)
    if not flow.scale(gain, writes=labels) or (shift is not None and not flow.scale(shift, writes=labels)):
        flow.fix(labels)
    return [across(labels, 1, rank) if gains.of_axis_one else labels]


LAYERS: Mapping[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys((name for name in _NORMALIZATIONS if not name.startswith("Skip")), _normalization),
}
"""By operator of the default domain."""
CONTRIBUTED: Mapping[str, Rule] = dict.fromkeys(_NORMALIZATIONS, _normalization)
"""By operator of com.microsoft."""
