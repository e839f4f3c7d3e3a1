"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear. Arithmetic on quantized tensors is in `quantized.py`."""

from collections.abc import Callable

import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.affine_quantization import (
    align,
    bounds,
    decode,
    divide,
    encode,
    has_bounds,
    uint8_range,
)
from worker.engine.torch_graph.kernels.rounding import FLOAT8, MINIFLOATS, to_type
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

T = ir.DataType
Rounding = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""From x / scale and a zero point to the quantized tensor."""


@operator("QuantizeLinear", domain=MICROSOFT, fixed=(2,))
@operator("QuantizeLinear", fixed=(2,))
def quantize_linear(node: Node) -> Run:
    """saturate(x / scale + zero_point), halves to even; the scale's shape decides the granularity."""
    axis, block_size = node.get("axis", 1), node.get("block_size", 0)
    precision = held_as(T(node.get("precision"))) if node.get("precision") else None
    rounding = _rounding(node, _quantized_type(node))

    def run(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None) -> torch.Tensor:
        ratio = divide(x, align(scale, x, axis, block_size), precision)
        return rounding(ratio, None if zero_point is None else align(zero_point, x, axis, block_size))

    return run


def _quantized_type(node: Node) -> ir.DataType:
    """The zero point's type, else the attribute's, else uint8."""
    asked = T(node.get("output_dtype")) if node.get("output_dtype") else None
    if not node.has(2):
        return asked or T.UINT8
    given = node.input_type(2) or asked or node.output_type()
    if given is None:
        raise node.refuse("the type of its zero point is unknown", "set output_dtype, or infer the graph's types")
    if asked not in (None, given):
        raise SlimlineError(
            "GRAPH_INVALID",
            f"QuantizeLinear: the zero point is {given.name}, output_dtype {T(node.get('output_dtype')).name}",
            node=node.name,
        )
    return given


def _rounding(node: Node, dtype: ir.DataType) -> Rounding:
    if has_bounds(dtype):
        low, high = bounds(dtype)
        held = held_as(dtype)
        return lambda ratio, zero_point: encode(ratio, zero_point, low, high).to(held)
    if dtype in FLOAT8:
        # The zero point only names the type: it is zero. The cast would pass gradients, rounded to float 8.
        saturates = bool(node.get("saturate", 1))
        return lambda ratio, _: to_type(ratio.detach(), dtype, saturate=saturates)
    if dtype in MINIFLOATS:
        return lambda ratio, zero_point: to_type(_shifted(ratio.detach(), zero_point), dtype)
    raise node.refuse(f"quantization to {dtype.name} is not run")


def _shifted(ratio: torch.Tensor, zero_point: torch.Tensor | None) -> torch.Tensor:
    return ratio if zero_point is None else ratio + zero_point.to(ratio.dtype)


@operator("DequantizeLinear", domain=MICROSOFT, fixed=(0, 2))
@operator("DequantizeLinear", fixed=(0, 2))
def dequantize_linear(node: Node) -> Run:
    """(x - zero_point) * scale in float32, given in the type of the scale or `output_dtype`."""
    axis, block_size = node.get("axis", 1), node.get("block_size", 0)
    result = held_as(T(node.get("output_dtype"))) if node.get("output_dtype") else None
    if result is None and node.input_type(1) is T.FLOAT8E8M0:
        raise node.refuse("the scale is float8e8m0 and output_dtype is not set", "set output_dtype")

    def run(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None) -> torch.Tensor:
        offset = None if zero_point is None else align(zero_point, x, axis, block_size)
        return decode(x.detach(), align(scale, x, axis, block_size), offset).to(result or scale.dtype)

    return run


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(_: Node) -> Run:
    """Quantizes to uint8 by the range of x, widened to hold zero: gives codes, scale and zero point."""
    low, high = bounds(T.UINT8)

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scale, zero_point = uint8_range(x)
        zero_point = zero_point.detach()
        return encode(x / scale, zero_point, low, high).to(torch.uint8), scale, zero_point.to(torch.uint8)

    return run
