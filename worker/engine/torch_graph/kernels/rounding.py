"""Conversions of values between ONNX element types, as pure functions of a tensor. The operators are in `operators/`.

Small types are held in larger ones (`dtypes`): int4 in int8, float4 in float16. Rounding is to nearest, ties to even.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

from worker.engine.torch_graph.dtypes import held_as

T = ir.DataType
SMALL_WHOLE: Mapping[ir.DataType, tuple[int, int]] = {
    T.INT4: (-8, 7),
    T.UINT4: (0, 15),
    T.INT2: (-2, 1),
    T.UINT2: (0, 3),
}
"""Smallest and largest number of the whole types under 8 bits."""


@dataclass(frozen=True)
class Minifloat:
    """A floating type of finite numbers only, under 8 bits (OCP Microscaling Formats 1.0, table 1)."""

    mantissa_bits: int
    smallest_exponent: int
    largest: float


MINIFLOATS: Mapping[ir.DataType, Minifloat] = {
    T.FLOAT4E2M1: Minifloat(1, 0, 6.0),
    T.FLOAT6E2M3: Minifloat(3, 0, 7.5),
    T.FLOAT6E3M2: Minifloat(2, -2, 28.0),
}
FLOAT8 = frozenset({T.FLOAT8E4M3FN, T.FLOAT8E4M3FNUZ, T.FLOAT8E5M2, T.FLOAT8E5M2FNUZ})

_E4M3FN_OVERFLOW = 464.0
"""Half a step above the largest float8e4m3fn; what lies beyond has no number."""


def to_type(x: torch.Tensor, to: ir.DataType, *, saturate: bool = True, round_mode: str = "up") -> torch.Tensor:
    """`x` as elements of type `to`, as Cast does it.

    Whole numbers that do not fit lose their high bits. `saturate` clamps to the range of a float8 type instead of
    giving infinity or NaN; `round_mode` (up, down, nearest) is for float8e8m0. Float4 and float6 always clamp.
    """
    match to:
        case T.FLOAT8E8M0:
            return _to_e8m0(x, round_mode, saturate=saturate)
        case _ if to in FLOAT8:
            return _to_float8(x, held_as(to), saturate=saturate)
        case _ if to in MINIFLOATS:
            return _round_to_grid(x, MINIFLOATS[to]).to(held_as(to))
        case _ if to in SMALL_WHOLE:
            return _wrap(x, *SMALL_WHOLE[to]).to(held_as(to))
        case _:
            return x.to(held_as(to))


def whole_range(dtype: ir.DataType) -> tuple[int, int]:
    """Smallest and largest number of a whole type."""
    if dtype in SMALL_WHOLE:
        return SMALL_WHOLE[dtype]
    limits = torch.iinfo(held_as(dtype))
    return limits.min, limits.max


def _round_to_grid(x: torch.Tensor, kind: Minifloat) -> torch.Tensor:
    """float32 of `x` rounded to the numbers of `kind`. NaN, which it lacks, becomes -0, as ml_dtypes does."""
    finite = x.float().clamp(-kind.largest, kind.largest).nan_to_num(-0.0)
    exponent = torch.frexp(finite).exponent - 1
    steps = kind.mantissa_bits - exponent.clamp(min=kind.smallest_exponent)
    return torch.ldexp(torch.ldexp(finite, steps).round(), -steps)


def _to_float8(x: torch.Tensor, held: torch.dtype, *, saturate: bool) -> torch.Tensor:
    if not x.dtype.is_floating_point or x.dtype.itemsize == 1:
        x = x.float()
    if saturate:
        largest = torch.finfo(held).max
        return x.clamp(-largest, largest).to(held)
    if held is torch.float8_e4m3fn:  # torch clamps to it
        x = torch.where(x.abs() > _E4M3FN_OVERFLOW, torch.nan, x)
    return x.to(held)


def _to_e8m0(x: torch.Tensor, round_mode: str, *, saturate: bool) -> torch.Tensor:
    """The exponent bits of float32, plus one where the fraction rounds up. NaN and infinity become NaN."""
    bits = x.float().view(torch.int32)
    exponent = (bits >> 23) & 0xFF
    match round_mode:
        case "up":
            grows = (bits & 0x7FFFFF) > 0
        case "nearest":
            grows = ((bits & 0x400000) > 0) & (((bits & 0x3FFFFF) > 0) | (exponent > 0))
        case _:
            grows = torch.zeros_like(bits, dtype=torch.bool)
    rounded = exponent + (grows & (exponent < (0xFE if saturate else 0xFF)))
    return rounded.to(torch.uint8).view(torch.float8_e8m0fnu)


def _wrap(x: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """The low bits of whole numbers, as a number of low .. high."""
    bits = x.to(torch.int64) if x.dtype.is_floating_point else x.to(torch.int8)
    return ((bits - low) & (high - low)) + low


def to_code(x: torch.Tensor, dtype: ir.DataType) -> torch.Tensor:
    """The bits of elements under 8 bits, as uint8."""
    if dtype in SMALL_WHOLE:
        return x.view(torch.uint8) & ((1 << dtype.bitwidth) - 1)
    kind = MINIFLOATS[dtype]
    bias, sign = 1 - kind.smallest_exponent, torch.signbit(x).to(torch.uint8) << (dtype.bitwidth - 1)
    exponent = (torch.frexp(x).exponent - 1).clamp(min=kind.smallest_exponent)
    significand = torch.ldexp(x.abs().float(), kind.mantissa_bits - exponent).to(torch.int32)
    return sign | (((exponent + bias - 1) << kind.mantissa_bits) + significand).to(torch.uint8)


def from_code(code: torch.Tensor, dtype: ir.DataType) -> torch.Tensor:
    """What `to_code` undoes."""
    if dtype in SMALL_WHOLE:
        return _wrap(code, *SMALL_WHOLE[dtype]).to(held_as(dtype))
    kind = MINIFLOATS[dtype]
    bits = code.to(torch.int32) & ((1 << (dtype.bitwidth - 1)) - 1)
    field = bits >> kind.mantissa_bits
    significand = (bits & ((1 << kind.mantissa_bits) - 1)) + ((field > 0).int() << kind.mantissa_bits)
    size = torch.ldexp(significand.float(), field.clamp(min=1) - 1 + kind.smallest_exponent - kind.mantissa_bits)
    return torch.where(code >> (dtype.bitwidth - 1) > 0, -size, size).to(held_as(dtype))
