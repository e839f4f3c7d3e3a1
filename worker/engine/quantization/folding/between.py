"""Rules of operators through which a positive scale for each channel passes: elementwise ones, pooling, reductions."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.graph.shapes import dims
from worker.engine.quantization.folding.flow import Flow, Rule
from worker.engine.quantization.folding.labels import FIXED, Labels, concatenated, varies, with_rank
from worker.engine.quantization.folding.operands import constant, is_given, rank_of
from worker.engine.quantization.nodes import attribute

_LARGEST_NUMBER = float(np.finfo(np.float32).max)
_SPATIAL = 2


def _same(flow: Flow, node: ir.Node) -> Sequence[Labels]:
    return [flow.of(node.inputs[0])]


def _nothing(_flow: Flow, _node: ir.Node) -> Sequence[Labels]:
    """What it makes does not depend on the numbers it reads."""
    return [FIXED]


def _together(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """Add, Max and the like: all operands have one scale, constants too."""
    stored = [value for value in node.inputs if value is not None and value.is_initializer()]
    labels = flow.join([flow.of(value) for value in node.inputs if value not in stored])
    if flow.is_free(labels) and not all(flow.scale(value, writes=labels) for value in stored):
        return None
    return [labels]


def _product(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """One factor carries the scale. A constant gain for each channel of a fixed tensor can give it one."""
    first, second = (flow.of(value) for value in node.inputs)
    if flow.is_free(first):
        flow.fix(second)
        return [first]
    if flow.is_free(second):
        return [second]
    for gain in node.inputs:
        shape = () if gain is None or not flow.may_scale(gain) else dims(gain) or ()
        sizes = [size for size in shape if isinstance(size, int)]
        if np.count_nonzero(np.array(sizes) > 1) == 1 and gain is not None:
            labels = flow.fresh(max(sizes)).reshape(sizes)
            return [labels] if flow.scale(gain, writes=labels) else None
    return [FIXED]


def _quotient(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    return None if flow.is_free(flow.of(node.inputs[1])) else _same(flow, node)


def _choice(flow: Flow, node: ir.Node) -> Sequence[Labels]:
    return [flow.join([flow.of(value) for value in node.inputs[1:]])]


def _clip(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """Only bounds at 0 or beyond all numbers scale with the tensor."""
    for index, none in ((1, -_LARGEST_NUMBER), (2, _LARGEST_NUMBER)):
        bound = constant(node, index) if is_given(node, index) else np.array(none)
        if bound is None or not (bound == 0 or (abs(bound) >= _LARGEST_NUMBER and np.sign(bound) == np.sign(none))):
            return None
    return _same(flow, node)


def _pool(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    rank, labels = rank_of(node.inputs[0]), flow.of(node.inputs[0])
    if rank is None or any(varies(labels, axis, rank) for axis in range(_SPATIAL, rank)):
        return None
    return [labels]


def _reduction(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    rank, axes = rank_of(node.inputs[0]), constant(node, 1)
    if "axes" in node.attributes:
        axes = np.array(node.attributes["axes"].as_ints())
    if rank is None or axes is None:
        return None
    labels, reduced = with_rank(flow.of(node.inputs[0]), rank), {int(axis) % rank for axis in axes.reshape(-1)}
    if labels is None or any(labels.shape[axis] > 1 for axis in reduced):
        return None
    kept = attribute(node, "keepdims", 1)
    return [labels if kept or not reduced else labels.squeeze(tuple(reduced))]


def _pad(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """Zeros have any scale; so have, along other axes than the channels, copies of what is there."""
    rank, pads, value = rank_of(node.inputs[0]), constant(node, 1), constant(node, 2)
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    axes = constant(node, 3) if is_given(node, 3) else np.arange(rank or 0)
    labels = None if rank is None else with_rank(flow.of(node.inputs[0]), rank)
    if labels is None or pads is None or axes is None:
        return None
    if mode == "constant" and is_given(node, 2) and (value is None or value.any()):
        return None
    for place, axis in enumerate(axes):
        ends = pads[[place, place + len(axes)]]
        if labels.shape[axis] == 1 or not ends.any():
            continue
        if mode != "constant" or ends.min() < 0:
            return None
        fresh = [np.moveaxis(flow.fresh(int(end)).reshape((-1,) + (1,) * (labels.ndim - 1)), 0, axis) for end in ends]
        labels = concatenated(
            [fresh[0], labels, fresh[1]], int(axis) % labels.ndim, [int(ends[0]), labels.shape[axis], int(ends[1])]
        )
    return [labels]


def _resize(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """Interpolation is linear; along the channels there must be none."""
    before, after, labels = dims(node.inputs[0]), dims(node.outputs[0]), flow.of(node.inputs[0])
    if before is None or after is None or attribute(node, "extrapolation_value", 0):
        return None
    resized = (axis for axis, size in enumerate(before) if size is None or size != after[axis])
    return None if any(varies(labels, axis, len(before)) for axis in resized) else [labels]


def _prelu(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    return None if flow.is_free(flow.of(node.inputs[1])) else _same(flow, node)


def matrix_product(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """Of two computed tensors, such as attention's probabilities and values: what is not summed over passes."""
    (left, right), ranks = (flow.of(value) for value in node.inputs), [rank_of(value) for value in node.inputs]
    if any(rank is None or rank < _SPATIAL for rank in ranks):
        return None
    if not flow.is_free(left) and not varies(right, -2, _SPATIAL):
        return [right]
    return [left] if not flow.is_free(right) and not varies(left, -1, _SPATIAL) else None


BETWEEN: Mapping[str, Rule] = {
    **dict.fromkeys(("Abs", "Dropout", "Expand", "Identity", "LeakyRelu", "Neg", "Relu"), _same),
    **dict.fromkeys(("Shape", "Size"), _nothing),
    **dict.fromkeys(("Add", "Max", "Min", "Sub", "Sum"), _together),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), _pool),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduction),
    "Clip": _clip,
    "Div": _quotient,
    "Mul": _product,
    "PRelu": _prelu,
    "Pad": _pad,
    "Resize": _resize,
    "Where": _choice,
}
"""By operator of the default domain."""
