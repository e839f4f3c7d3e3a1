"""Affine quantization, `round(x / scale) + zero_point` clipped: the arithmetic of operators and of fake quantization.

A whole number of any width is called a code. Rounding to float 8 and float 4 is in `rounding.py`.
"""

from collections.abc import Callable

import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.rounding import whole_range
from worker.engine.torch_graph.node import Node

T = ir.DataType
Quantize = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""From values, a scale and a zero point to codes, held in their type."""
_QUANTIZED = frozenset({T.UINT2, T.INT2, T.UINT4, T.INT4, T.UINT8, T.INT8, T.UINT16, T.INT16})


def has_bounds(dtype: ir.DataType | None) -> bool:
    """Whether `dtype` is a whole-number type that values are quantized to."""
    return dtype in _QUANTIZED


def bounds(dtype: ir.DataType) -> tuple[int, int]:
    """Lowest and highest code of `dtype`. Raises SlimlineError TENSOR_TYPE_UNSUPPORTED for other types."""
    if dtype not in _QUANTIZED:
        raise SlimlineError("TENSOR_TYPE_UNSUPPORTED", f"values are not quantized to whole numbers of {dtype.name}")
    return whole_range(dtype)


def align(parameter: torch.Tensor, x: torch.Tensor, axis: int, block_size: int) -> torch.Tensor:
    """A scale or zero point in a shape that broadcasts against `x`.

    One element serves all of `x`; a vector lies along `axis`; with `block_size`, one element serves so many
    neighbours along `axis`, the last block may be short.
    """
    if parameter.dim() == 0:
        return parameter
    if parameter.numel() == 1:
        return parameter.reshape(())
    if not block_size:
        shape = [1] * x.dim()
        shape[axis] = -1
        return parameter.reshape(shape)
    axis %= x.dim()
    sizes = [-1] * (x.dim() + 1)
    sizes[axis + 1] = block_size
    return parameter.unsqueeze(axis + 1).expand(sizes).flatten(axis, axis + 1).narrow(axis, 0, x.shape[axis])


def collect(gradient: torch.Tensor, parameter: torch.Tensor, axis: int, block_size: int) -> torch.Tensor:
    """The transpose of `align`: sums a tensor of the shape of `x` to the shape of `parameter`."""
    if parameter.numel() == 1:
        return gradient.sum().reshape(parameter.shape)
    axis %= gradient.dim()
    if not block_size:
        others = [i for i in range(gradient.dim()) if i != axis]
        return gradient.sum(others) if others else gradient
    short = parameter.shape[axis] * block_size - gradient.shape[axis]
    filled = torch.nn.functional.pad(gradient, [0, 0] * (gradient.dim() - 1 - axis) + [0, short])
    return torch.unflatten(filled, axis, (parameter.shape[axis], block_size)).sum(axis + 1)


def divide(x: torch.Tensor, scale: torch.Tensor, precision: torch.dtype | None = None) -> torch.Tensor:
    """Divide in `precision`, else in the type of both; in float32 where they differ, float64 for whole numbers.

    That is how the reference does it. `scale` broadcasts against `x`.
    """
    if precision is None and x.dtype != scale.dtype:
        precision = torch.float32 if x.is_floating_point() and scale.is_floating_point() else torch.float64
        if torch.float64 in (x.dtype, scale.dtype):
            precision = torch.float64
    elif precision is None and not x.is_floating_point():
        precision = torch.float64
    return x / scale if precision is None else x.to(precision) / scale.to(precision)


def widen(x: torch.Tensor) -> torch.Tensor:
    """`x` in a type where whole numbers of 16 bits and their sums are exact."""
    return x.float() if x.dtype.itemsize < torch.float32.itemsize else x


def encode(ratio: torch.Tensor, zero_point: torch.Tensor | None, low: int, high: int) -> torch.Tensor:
    """Codes of `ratio` = x / scale, still in a floating type: half to even, then the zero point, then the bounds."""
    codes = widen(ratio).round()
    if zero_point is not None:
        codes = codes + zero_point.to(codes.dtype)
    return codes.clamp(low, high)


def decode(codes: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None) -> torch.Tensor:
    """(codes - zero_point) * scale in float32, in float64 if the scale is or zero points have 32 bits."""
    wide = torch.float32
    if scale.dtype == torch.float64 or (zero_point is not None and zero_point.dtype == torch.int32):
        wide = torch.float64
    values = codes.to(torch.float32).to(wide)
    if zero_point is not None:
        values = values - zero_point.to(wide)
    return values * scale.to(wide)


def uint8_range(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point, a whole number in the type of `x`, that let uint8 reach all of `x`, and zero."""
    low, high = bounds(T.UINT8)
    least, most = x.aminmax()
    least = least.clamp(max=0)
    width = most.clamp(min=0) - least
    scale = torch.where(width == 0, 1, width) / (high - low)
    return scale, (low - least / scale).clamp(low, high).round()


def eight_bit_type(node: Node, index: int) -> ir.DataType:
    """int8 or uint8, as input `index` is, or the output where that is left out. Raises SlimlineError for others."""
    given = node.input_type(index) or node.output_type()
    if given not in (T.INT8, T.UINT8):
        raise node.refuse(f"{given.name if given else 'an unknown type'} is not run", "use int8 or uint8")
    return given


def quantizer(node: Node, index: int, *, shifts_first: bool = False) -> Quantize:
    """Quantization to the `eight_bit_type` of input `index`.

    With `shifts_first` the zero point is added before rounding, as several kernels do: ties fall on other codes where
    it is odd.
    """
    result = eight_bit_type(node, index)
    low, high = bounds(result)
    held = held_as(result)

    def quantize(values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None) -> torch.Tensor:
        ratio = values / scale
        if shifts_first and zero_point is not None:
            ratio, zero_point = ratio + zero_point, None
        return encode(ratio, zero_point, low, high).to(held)

    return quantize
