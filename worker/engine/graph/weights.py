"""Counts weights: how many, how many of them are not zero, and in how many bits they are stored."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph.graph import Array, Graph

_PACKED_ZEROS = 3
"""Input of MatMulNBits that holds zero points."""


@dataclass(frozen=True)
class WeightCount:
    """Sums over weight tensors; `bits` is what they take as stored."""

    count: int = 0
    nonzero: int = 0
    bits: int = 0

    def __add__(self, other: "WeightCount") -> "WeightCount":
        return WeightCount(self.count + other.count, self.nonzero + other.nonzero, self.bits + other.bits)


@dataclass(frozen=True)
class _Quantized:
    """Where an operator takes integers that stand for weights: their zero point's input, and the axes it runs along."""

    zero_point: int | None = None
    axes: tuple[int, ...] = ()


_INTEGERS: Mapping[tuple[str, int], _Quantized] = {
    ("ConvInteger", 1): _Quantized(3, (0,)),
    ("QLinearConv", 3): _Quantized(5, (0,)),
    ("QLinearConv", 8): _Quantized(),
    ("MatMulInteger", 0): _Quantized(2, (-2,)),
    ("MatMulInteger", 1): _Quantized(3, (-1,)),
    ("QLinearMatMul", 0): _Quantized(2, (-2,)),
    ("QLinearMatMul", 3): _Quantized(5, (-1,)),
    ("MatMulIntegerToFloat", 1): _Quantized(5, (-1,)),
    ("DynamicQuantizeMatMul", 1): _Quantized(3, (-1,)),
    ("DynamicQuantizeLSTM", 1): _Quantized(9, (0, 2)),
    ("DynamicQuantizeLSTM", 2): _Quantized(11, (0, 2)),
    ("QAttention", 1): _Quantized(7, (-1,)),
    ("QGemm", 3): _Quantized(5, (-1,)),
    ("QGemm", 6): _Quantized(),
    ("QLinearAdd", 0): _Quantized(2),
    ("QLinearAdd", 3): _Quantized(5),
    ("QLinearMul", 0): _Quantized(2),
    ("QLinearMul", 3): _Quantized(5),
}
_SCALES: Mapping[str, tuple[int, ...]] = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QLinearAdd": (1, 4, 6),
    "QLinearMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
    "MatMulIntegerToFloat": (2, 3),
    "DynamicQuantizeMatMul": (2,),
    "DynamicQuantizeLSTM": (8, 10),
    "QAttention": (3, 4),
    "MatMulNBits": (2,),
    "Resize": (1, 2),
    "Upsample": (1,),
}
"""Floating inputs that are no weights."""

_BYTES = frozenset({ir.DataType.INT8, ir.DataType.UINT8})
_RESTORED_LATER = frozenset({("Cast", 0), ("Gather", 0)})
"""Where bytes stand for weights without a zero point: a Mul by their scale follows."""
_REARRANGE = frozenset({"Gather", "Transpose"})


def count_weights(graph: Graph) -> WeightCount:
    """Over initializers of rank 1 and up that hold floats, or integers that stand for them; not scales, not shapes."""
    return sum((count_weight(value) for value in graph.initializers()), WeightCount())


def count_weight(value: ir.Value) -> WeightCount:
    """One initializer; all zeros where it is no weight."""
    tensor = value.const_value
    if tensor is None or not tensor.shape.rank():
        return WeightCount()
    if tensor.dtype.is_floating_point():
        if all(_is_scale(node, index) for node, index in value.uses()) and value.uses():
            return WeightCount()
        return WeightCount(tensor.size, int(np.count_nonzero(tensor.numpy())), tensor.nbytes * 8)
    for node, index in value.uses():
        if (node.op_type, index) == ("MatMulNBits", 1):
            return _count_packed(node, tensor.numpy(), tensor.nbytes * 8)
        zero = _zero_point(node, index, tensor.numpy())
        if zero is not None:
            return WeightCount(tensor.size, int(np.count_nonzero(tensor.numpy() != zero)), tensor.nbytes * 8)
    return WeightCount()


def _is_scale(node: ir.Node, index: int) -> bool:
    """Whether a float is a quantization scale; dynamic quantization multiplies it with that of the activations."""
    if node.op_type == "Mul":
        other = node.inputs[1 - index]
        maker = other.producer() if other is not None else None
        return maker is not None and (maker.op_type == "DynamicQuantizeLinear" or _restores(maker))
    if node.op_type == "Gather" and index == 0:
        return all(_is_scale(*use) for use in node.outputs[0].uses()) and bool(node.outputs[0].uses())
    return index in _SCALES.get(node.op_type, ())


def _restores(node: ir.Node) -> bool:
    """Whether a Cast makes floats of 8-bit weights, or of rows of them: what is multiplied with it is their scale."""
    if node.op_type != "Cast":
        return False
    source = node.inputs[0]
    while source is not None and (maker := source.producer()) is not None and maker.op_type in _REARRANGE:
        source = maker.inputs[0]
    return source is not None and source.is_initializer() and source.dtype in _BYTES


def _zero_point(node: ir.Node, index: int, stored: Array) -> Array | None:
    """The integer that stands for 0, shaped to broadcast over `stored`; None where it is no weight of this node."""
    if node.op_type == "DequantizeLinear" and index == 0:
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        where = _Quantized(2, (axis,))
    elif (node.op_type, index) in _RESTORED_LATER and ir.DataType.from_numpy(stored.dtype) in _BYTES:
        where = _Quantized()
    elif (node.op_type, index) in _INTEGERS:
        where = _INTEGERS[node.op_type, index]
    else:
        return None
    zero = (
        node.inputs[where.zero_point] if where.zero_point is not None and where.zero_point < len(node.inputs) else None
    )
    if zero is None or zero.const_value is None:
        return np.zeros((), stored.dtype)
    return _broadcast(zero.const_value.numpy(), stored, where.axes)


def _broadcast(zero: Array, stored: Array, axes: tuple[int, ...]) -> Array:
    if zero.size == 1:
        return zero.reshape(())
    if zero.ndim == stored.ndim:  # one per block along the axis
        size = stored.shape[axes[0]]
        return np.repeat(zero, -(-size // zero.shape[axes[0]]), axes[0]).take(range(size), axes[0])
    shape = [1] * stored.ndim
    for axis, size in zip(axes, zero.shape, strict=False):
        shape[axis] = size
    return zero.reshape(shape)


def _count_packed(node: ir.Node, packed: Array, stored_bits: int) -> WeightCount:
    """MatMulNBits: N x blocks x bytes, several numbers a byte; without zero points the middle of the range is 0."""
    rows, columns = node.attributes["K"].as_int(), node.attributes["N"].as_int()
    width = node.attributes["bits"].as_int()
    zero: Array = np.full((columns, packed.shape[1]), 1 << (width - 1))
    told = node.inputs[_PACKED_ZEROS] if len(node.inputs) > _PACKED_ZEROS else None
    if told is not None and told.const_value is not None:
        zero = _unpack(told.const_value.numpy().reshape(columns, -1), width)[:, : packed.shape[1]]
    is_used = (_unpack(packed, width) != zero[..., None]).reshape(columns, -1)[:, :rows]
    return WeightCount(rows * columns, int(np.count_nonzero(is_used)), stored_bits)


def _unpack(packed: Array, width: int) -> Array:
    """The numbers of `width` bits in each byte, lowest first, along the last axis."""
    parts = [packed >> shift & ((1 << width) - 1) for shift in range(0, 8, width)]
    return np.stack(parts, -1).reshape(*packed.shape[:-1], -1)
