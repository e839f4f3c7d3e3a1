"""What is put where slices of stored tensors are masked: 0, or the integer that stands for it. No labels here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from worker.engine.graph.graph import Graph

_VARIANCE, _MASK = 4, 3
_KEPT = frozenset(
    {
        ("Attention", _MASK),
        ("BatchNormalization", _VARIANCE),
        ("DequantizeLinear", 1),
        ("DequantizeLinear", 2),
        ("Div", 1),
        ("Pow", 1),
        ("QuantizeLinear", 1),
        ("QuantizeLinear", 2),
    }
)
"""Operators and inputs where zero would not leave zeros: divisors, scales and zero points, what softmax must see."""


def is_masked(value: ir.Value) -> bool:
    """Whether a stored tensor is masked: what is read as a divisor stays, for one."""
    return not any((node.op_type, index) in _KEPT for node, index in value.uses())


def mask(graph: Graph, constant: str, axis: int, gone: NDArray[np.bool_]) -> None:
    """Mask, in place, the slices of a stored tensor that are `gone`."""
    value = graph.initializer(constant)
    if not is_masked(value):
        return
    array, zero = graph.array(value).copy(), zero_point_of(value)
    zeros = np.zeros_like(array) if zero is None else zero
    np.moveaxis(array, axis, 0)[gone] = np.moveaxis(zeros, axis, 0)[gone]
    graph.set_array(value, array)


def zero_point_of(value: ir.Value) -> NDArray[Any] | None:
    """What stands for 0 in a stored tensor, in its shape and type; None where its readers do not agree on it."""
    if value.const_value is None:
        return None
    shape, dtype = value.const_value.shape.numpy(), value.const_value.dtype.numpy()
    zeros = [
        _read_as_zero(node, shape, dtype) if _dequantizes(node, index) else np.zeros(shape, dtype)
        for node, index in value.uses()
    ]
    known = [zero for zero in zeros if zero is not None]
    agree = len(known) == len(zeros) and all(np.array_equal(zero, known[0]) for zero in known)
    return known[0] if agree and known else None


def _dequantizes(node: ir.Node, index: int) -> bool:
    return node.op_type == "DequantizeLinear" and index == 0


def _read_as_zero(node: ir.Node, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The zero point of a DequantizeLinear for each element of what it reads; None where it is computed."""
    point = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - the third input
    if point is None:
        return np.zeros(shape, dtype)
    if point.const_value is None or point.is_graph_input():
        return None
    array, (axis, block) = point.const_value.numpy(), quantized_along(node, len(shape))
    if array.size == 1:
        return np.full(shape, array.reshape(()), dtype)
    if block:
        return np.repeat(array, block, axis).take(np.arange(shape[axis]), axis)
    along = array.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return np.broadcast_to(along, shape)


def quantized_along(node: ir.Node, rank: int) -> tuple[int, int]:
    """The axis along which a quantization has several scales, and how many indices share one; 0 for one each."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    block = node.attributes["block_size"].as_int() if "block_size" in node.attributes else 0
    return axis % max(rank, 1), block
