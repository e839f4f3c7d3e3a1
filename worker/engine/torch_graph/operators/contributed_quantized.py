"""Microsoft's operators on 8-bit tensors, element by element or along one axis.

Pools are in `contributed_quantized_pooling.py`, products of matrices in `contributed_quantized_products.py`.
Each is a function of the dequantized values, quantized again, so gradients end here. ONNX Runtime folds scales
together and uses approximate tables: where a value lies within float32 rounding of a tie, its code may differ by one.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.affine_quantization import bounds, decode, eight_bit_type, quantizer
from worker.engine.torch_graph.kernels.integer_arithmetic import centre
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

Zero = torch.Tensor | None
_FLATTENED_UP_TO = 12
"""The last opset whose Softmax takes all axes from `axis` on as one."""


@operator("QLinearAdd", domain=MICROSOFT, fixed=(0, 2, 3, 5, 7))
def add(node: Node) -> Run:
    """The sum of the values."""
    return _binary(node, lambda a, b, a_scale, b_scale, scale: a * (a_scale / scale) + b * (b_scale / scale))


@operator("QLinearMul", domain=MICROSOFT, fixed=(0, 2, 3, 5, 7))
def multiply(node: Node) -> Run:
    """The product of the values."""
    return _binary(node, lambda a, b, a_scale, b_scale, scale: a * b * (a_scale * b_scale / scale))


def _binary(node: Node, combine: Callable[..., torch.Tensor]) -> Run:
    """`combine` takes both codes less their zero points, and three scales. The zero point goes before rounding."""
    result = eight_bit_type(node, 0)
    low, high = bounds(result)
    held = held_as(result)

    def run(*inputs: Any) -> torch.Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = (*inputs, None)[:8]
        a, b = centre(a, a_zero, torch.float32), centre(b, b_zero, torch.float32)
        value = combine(a, b, a_scale, b_scale, scale)
        return (value if zero is None else value + zero).round().clamp(low, high).to(held)

    return run


@operator("QLinearSigmoid", domain=MICROSOFT, fixed=(0, 2, 4))
def sigmoid(node: Node) -> Run:
    """The logistic function of the values."""
    return _unary(node, torch.sigmoid)


@operator("QLinearLeakyRelu", domain=MICROSOFT, fixed=(0, 2, 4))
def leaky_relu(node: Node) -> Run:
    """The values where positive, alpha times them elsewhere."""
    slope = node.get("alpha", 0.01)
    return _unary(node, lambda x: F.leaky_relu(x, slope))


@operator("QLinearSoftmax", domain=MICROSOFT, fixed=(0, 2, 4))
def softmax(node: Node) -> Run:
    """Softmax of the values; before opset 13 over all axes from `axis` on.

    ONNX Runtime cuts 1 / scale of the result down to a whole number, which for the usual 1 / 256 it is. This does not.
    """
    axis = node.get("axis", -1)
    if node.need("opset") > _FLATTENED_UP_TO:
        return _unary(node, lambda x: F.softmax(x, axis))

    def flattened(x: torch.Tensor) -> torch.Tensor:
        return F.softmax(x.flatten(axis), -1).reshape(x.shape) if x.dim() else torch.ones_like(x)

    return _unary(node, flattened)


def _unary(node: Node, function: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    quantize = quantizer(node, 0)

    def run(
        x: torch.Tensor, x_scale: torch.Tensor, x_zero: Zero, scale: torch.Tensor, zero: Zero = None
    ) -> torch.Tensor:
        return quantize(function(decode(x, x_scale, x_zero)), scale, zero)

    return run


@operator("QLinearConcat", domain=MICROSOFT)
def concat(node: Node) -> Run:
    """Tensors of different scales, one behind the other in the result's scale."""
    axis, quantize = node.need("axis"), quantizer(node, 1)

    def run(scale: torch.Tensor, zero: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        return torch.cat([quantize(decode(*triple), scale, zero) for triple in triples], axis)

    return run


@operator("QLinearWhere", domain=MICROSOFT, fixed=(1, 3, 4, 6, 8))
def where(node: Node) -> Run:
    """Elements of two tensors of different scales, in the result's scale."""
    quantize = quantizer(node, 8)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        condition, x, x_scale, x_zero, y, y_scale, y_zero, scale, zero = inputs
        chosen = quantize(decode(x, x_scale, x_zero), scale, zero), quantize(decode(y, y_scale, y_zero), scale, zero)
        return torch.where(condition, *chosen)

    return run
