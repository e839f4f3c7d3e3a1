"""Microsoft's products of 8-bit matrices. Those that give numbers pass gradients to their scales and float inputs."""

from typing import Any

import onnx_ir as ir
import torch

from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.affine_quantization import bounds, eight_bit_type, encode, uint8_range
from worker.engine.torch_graph.kernels.fake_quantize import round_straight_through
from worker.engine.torch_graph.kernels.integer_arithmetic import Parameter, centre, multiply, per_column, summing_type
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

T = ir.DataType
Zero = torch.Tensor | None


@operator("QGemm", domain=MICROSOFT, fixed=(0, 2, 3, 5, 6, 8))
def q_gemm(node: Node) -> Run:
    """Product plus c, times alpha; in float32 unless the result has a scale. The scale of c is that of the product."""
    alpha, quantizes = node.get("alpha", 1.0), node.has(7)
    turns_a, turns_b = node.get("transA", 0), node.get("transB", 0)
    result = eight_bit_type(node, 8) if quantizes else T.FLOAT
    low, high = bounds(result) if quantizes else (0, 0)

    def run(*inputs: Any) -> torch.Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, c, scale, zero = (*inputs, None, None, None)[:9]
        total = multiply(a.T if turns_a else a, b.T if turns_b else b, _scalar(a_zero), b_zero)
        if c is not None:
            total = total.double() + c
        value = total.float() * (_scalar(a_scale) * per_column(b_scale) * alpha)
        return encode(value / scale, zero, low, high).to(held_as(result)) if quantizes else value

    return run


@operator("MatMulIntegerToFloat", domain=MICROSOFT, fixed=(0, 1, 4, 5))
def mat_mul_integer_to_float(_: Node) -> Run:
    """The product of the dequantized operands, plus a bias."""

    def run(*inputs: Any) -> torch.Tensor:
        a, b, a_scale, b_scale, a_zero, b_zero, bias = (*inputs, None, None, None)[:7]
        total = multiply(a, b, _scalar(a_zero), b_zero)
        value = total.float() * (_scalar(a_scale).float() * per_column(b_scale).float())
        shifted: torch.Tensor = value if bias is None else value + bias
        return shifted.to(a_scale.dtype)

    return run


@operator("DynamicQuantizeMatMul", domain=MICROSOFT, fixed=(1, 3))
def dynamic_quantize_mat_mul(_: Node) -> Run:
    """Product of a, quantized to uint8 by its own range, with dequantized b, plus a bias. Straight-through to a."""

    def run(
        a: torch.Tensor, b: torch.Tensor, b_scale: torch.Tensor, b_zero: Zero = None, bias: Zero = None
    ) -> torch.Tensor:
        weight = centre(b, per_column(b_zero), summing_type(a.shape[-1], a.device))
        value = multiply_dynamically(a, weight, per_column(b_scale))
        return value if bias is None else value + bias

    return run


def multiply_dynamically(a: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`a`, quantized to uint8 by its own range, times codes less their zero point, in their `summing_type`."""
    a_scale, zero = uint8_range(a.detach())
    low, high = bounds(T.UINT8)
    codes = round_straight_through(a / a_scale).clamp(low - zero, high - zero)
    return torch.matmul(codes.to(weight.dtype), weight).float() * (a_scale * scale)


def _scalar(parameter: Parameter) -> Parameter:
    """A scale or zero point of a left operand: one element, or torch raises."""
    return None if parameter is None else parameter.reshape(())
