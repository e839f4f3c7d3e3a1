"""Quantization: indices pass, and scales and zero points go with those they are for. Integer operators stay whole.

Of integers, *zero* means what stands for 0: their zero point.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.masking import quantized_along, zero_point_of
from worker.engine.graph.channels.table import MICROSOFT, rule
from worker.engine.graph.channels.unions import Axes
from worker.engine.graph.channels.walk import Walk, called

_POINT = 2


@rule("QuantizeLinear")
@rule("QuantizeLinear", domain=MICROSOFT)
def _quantize(walk: Walk, node: ir.Node) -> None:
    output = node.outputs[0]
    is_clear = _is_all_zero(_point(node)) or all(_reads_same(node, *use) for use in output.uses())
    walk.give(output, _tied(walk, node), zero=walk.is_zero(node.inputs[0]) and is_clear)


@rule("DequantizeLinear")
@rule("DequantizeLinear", domain=MICROSOFT)
def _dequantize(walk: Walk, node: ir.Node) -> None:
    integers = node.inputs[0]
    walk.give(
        node.outputs[0], _tied(walk, node), zero=walk.is_zero(integers) and _stands_for_zero(walk, node, integers)
    )


def _stands_for_zero(walk: Walk, node: ir.Node, integers: ir.Value | None) -> bool:
    """Whether what is called zero of the integers is the zero point that the node takes off them."""
    if integers is not None and walk.is_constant(integers):
        return zero_point_of(integers) is not None
    maker = None if integers is None else integers.producer()
    return _is_all_zero(_point(node)) or (maker is not None and _reads_same(maker, node, 0))


def _reads_same(maker: ir.Node, reader: ir.Node, index: int) -> bool:
    """Whether a node dequantizes what `maker` quantized, by the same zero point."""
    if reader.op_type != "DequantizeLinear" or index or maker.op_type not in _MAKES:
        return False
    first, second = maker.outputs[2] if maker.op_type == _DYNAMIC else _point(maker), _point(reader)
    if first is second:
        return True
    arrays = [_array(first), _array(second)]
    return arrays[0] is not None and arrays[1] is not None and np.array_equal(arrays[0], arrays[1])


_DYNAMIC = "DynamicQuantizeLinear"
_MAKES = frozenset({"QuantizeLinear", _DYNAMIC})


def _point(node: ir.Node) -> ir.Value | None:
    """The zero point of Q or DQ; None is 0."""
    return node.inputs[_POINT] if len(node.inputs) > _POINT else None


def _array(point: ir.Value | None) -> np.ndarray | None:
    if point is None:
        return np.zeros((), np.int8)
    return None if point.const_value is None or point.is_graph_input() else point.const_value.numpy()


def _is_all_zero(point: ir.Value | None) -> bool:
    array = _array(point)
    return array is not None and not array.any()


def _tied(walk: Walk, node: ir.Node) -> Axes | None:
    """The labels of what Q or DQ reads, tied to those of its scales and zero points."""
    axes = walk.known_axes(node.inputs[0])
    axis, block = quantized_along(node, len(axes or ()))
    for own in map(walk.known_axes, node.inputs[1:]):
        if axes is None or own is None:
            continue
        if len(own) == len(axes) and block:
            for place, (labels, scales) in enumerate(zip(axes, own, strict=True)):
                walk.unite(labels, np.repeat(scales, block)[: len(labels)] if place == axis else scales)
        elif len(own) == 1 and len(own[0]) > 1:
            walk.unite(axes[axis], own[0])
    return axes


@rule(_DYNAMIC)
def _quantize_by_range(walk: Walk, node: ir.Node) -> None:
    """The range of a tensor holds 0: that of what is left is the same where what goes would be zero."""
    value, (codes, *parameters) = node.inputs[0], node.outputs
    axes, zero = walk.known_axes(value), walk.is_zero(value)
    for labels in axes or ():
        if not zero:
            walk.block(labels, f"{called(node)} takes its range over it, and it would not be zero where masked")
    walk.give(codes, axes, zero=zero and all(_reads_same(node, *use) for use in codes.uses()))
    for each in parameters:
        walk.give(each, [])


@rule("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
@rule(
    "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "GatherBlockQuantized", "MatMulIntegerToFloat", "MatMulNBits",
    "QAttention", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere",
    domain=MICROSOFT,
)  # fmt: skip
def _integers(walk: Walk, node: ir.Node) -> None:
    walk.give_up(node, f"{called(node)} is stored in integers: prune before quantizing")
