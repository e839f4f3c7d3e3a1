"""Products of quantized tensors in the default domain. Microsoft's are in the `contributed_quantized` files."""

from typing import Any

import onnx_ir as ir
import torch

from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.affine_quantization import bounds, eight_bit_type
from worker.engine.torch_graph.kernels.integer_arithmetic import (
    Convolution,
    multiply,
    per_channel,
    per_column,
    per_row,
    to_int32,
)
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

T = ir.DataType
Zero = torch.Tensor | None


@operator("MatMulInteger", fixed=(0, 1, 2, 3))
def mat_mul_integer(node: Node) -> Run:
    """(a - a_zero_point) @ (b - b_zero_point) in int32."""
    _check_operands(node, 0, 1)

    def run(a: torch.Tensor, b: torch.Tensor, a_zero_point: Zero = None, b_zero_point: Zero = None) -> torch.Tensor:
        return to_int32(multiply(a, b, a_zero_point, b_zero_point))

    return run


@operator("ConvInteger", fixed=(0, 1, 2, 3))
def conv_integer(node: Node) -> Run:
    """The convolution of x - x_zero_point with w - w_zero_point in int32."""
    _check_operands(node, 0, 1)
    convolve = Convolution(node)

    def run(x: torch.Tensor, weight: torch.Tensor, x_zero: Zero = None, weight_zero: Zero = None) -> torch.Tensor:
        return to_int32(convolve(x, weight, x_zero, weight_zero))

    return run


@operator("QLinearMatMul", fixed=(0, 2, 3, 5, 7))
def q_linear_mat_mul(node: Node) -> Run:
    """The product of the dequantized operands, quantized. A vector of scales is per row of a, per column of b."""
    _check_operands(node, 0, 3)
    requantize = _Requantize(node, 7)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
        factor = per_row(a_scale) * per_column(b_scale) / y_scale
        return requantize(multiply(a, b, a_zero, b_zero), factor, y_zero)

    return run


@operator("QLinearConv", domain=MICROSOFT, fixed=(0, 2, 3, 5, 7, 8))
@operator("QLinearConv", fixed=(0, 2, 3, 5, 7, 8))
def q_linear_conv(node: Node) -> Run:
    """The convolution of the dequantized operands, quantized. The bias has the scale of the products."""
    _check_operands(node, 0, 3)
    convolve, requantize = Convolution(node), _Requantize(node, 7)

    def run(*inputs: Any) -> torch.Tensor:
        x, x_scale, x_zero, weight, weight_scale, weight_zero, y_scale, y_zero, *bias = inputs
        rank = x.dim()
        total = convolve(x, weight, x_zero, weight_zero)
        if bias and bias[0] is not None:
            total = total.double() + per_channel(bias[0], rank, 1)
        factor = x_scale * weight_scale / y_scale
        return requantize(total, per_channel(factor, rank, 1), y_zero)

    return _on_last_channels(run) if node.get("channels_last", 0) else run


def _on_last_channels(run: Run) -> Run:
    """`run` for an input and a result with the channels as their last dimension; the weight is as ever."""
    return lambda x, *others: run(x.movedim(-1, 1), *others).movedim(1, -1)


def _check_operands(node: Node, *indices: int) -> None:
    for index in indices:
        given = node.input_type(index)
        if given not in (T.INT8, T.UINT8, None):
            raise node.refuse(f"an operand of type {given.name} is not run", "use int8 or uint8")


class _Requantize:
    """Whole sums of products to 8-bit codes: as in the reference the zero point is added before rounding, in float64.

    ONNX Runtime rounds first, which differs where a tie meets an odd zero point.
    """

    def __init__(self, node: Node, index: int) -> None:
        """The type is that of the zero point, input `index`. Raises SlimlineError where it has not 8 whole bits."""
        result = eight_bit_type(node, index)
        self.limits = bounds(result)
        self.held = held_as(result)

    def __call__(self, total: torch.Tensor, factor: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
        scaled = total.double() * factor.double() + zero_point.double()
        return scaled.round().clamp(*self.limits).to(self.held)
