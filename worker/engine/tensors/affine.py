"""Affine quantization of arrays: scales, zero points, rounding. No graph and no choice of what to quantize."""

from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""A scale below this is denormal in float32: its inverse overflows."""
STORED: Mapping[tuple[int, bool], DTypeLike] = {
    (4, True): ml_dtypes.int4,
    (4, False): ml_dtypes.uint4,
    (8, True): np.int8,
    (8, False): np.uint8,
    (16, True): np.int16,
    (16, False): np.uint16,
}
"""The type that holds integers of so many bits, signed or not."""
_CLIPPED_SHARES = np.linspace(1.0, 0.5, 26)
"""Of the widest range, the shares that a search tries."""


@dataclass(frozen=True)
class IntegerRange:
    """The integers a quantized value may take, both ends included."""

    low: int
    high: int

    @classmethod
    def of(cls, bits: int, *, signed: bool, symmetric: bool = False) -> "IntegerRange":
        """The range of `bits`; a symmetric signed one leaves out the lowest integer, so that 0 is its middle."""
        if not signed:
            return cls(0, 2**bits - 1)
        top = 2 ** (bits - 1) - 1
        return cls(-top if symmetric else -top - 1, top)


def affine_parameters(low: float, high: float, integers: IntegerRange, *, symmetric: bool) -> tuple[float, int]:
    """Scale and zero point that map [low, high], widened to hold 0, onto `integers`; real 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    scale = (high - low) / (integers.high - integers.low)
    if scale < SMALLEST_SCALE:
        return 1.0, (integers.low + integers.high + 1) // 2 if symmetric else integers.low
    if symmetric:
        return scale, (integers.low + integers.high + 1) // 2
    return scale, int(np.clip(round(integers.low - low / scale), integers.low, integers.high))


def symmetric_scale(weight: Floats, kept_axes: tuple[int, ...], bits: int = 8) -> NDArray[np.float32]:
    """One scale for every index of `kept_axes`, shaped to broadcast against `weight`; 1 where all weights are 0."""
    reduced = tuple(axis for axis in range(weight.ndim) if axis not in kept_axes)
    largest = np.abs(weight).max(axis=reduced, keepdims=True, initial=0.0)
    scale = (largest / IntegerRange.of(bits, signed=True, symmetric=True).high).astype(np.float32)
    return np.where(scale < SMALLEST_SCALE, np.float32(1), scale)


def best_symmetric_scale(weight: Floats, kept_axes: tuple[int, ...], bits: int = 8) -> NDArray[np.float32]:
    """Like `symmetric_scale`, of scales that clip the largest weights the one with the least squared error."""
    reduced = tuple(axis for axis in range(weight.ndim) if axis not in kept_axes)
    integers, widest = IntegerRange.of(bits, signed=True, symmetric=True), symmetric_scale(weight, kept_axes, bits)
    best, least = widest, np.full(widest.shape, np.inf)
    for share in _CLIPPED_SHARES:
        scale = np.maximum(widest * np.float32(share), SMALLEST_SCALE).astype(np.float32)
        error = np.square(weight - dequantize(quantize(weight, scale, 0, integers), scale, 0)).sum(
            axis=reduced, keepdims=True
        )
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def quantize(
    values: Floats, scale: Floats | float, zero_point: Integers | int, integers: IntegerRange, bits: int = 8
) -> Integers:
    """Round half to even, shift, clip: what ONNX QuantizeLinear does. Stored in `bits`, signed if the range is."""
    rounded = np.rint(np.asarray(values, np.float32) / np.asarray(scale, np.float32)) + zero_point
    return np.clip(rounded, integers.low, integers.high).astype(STORED[bits, integers.low < 0])


def dequantize(quantized: Integers, scale: Floats | float, zero_point: Integers | int) -> NDArray[np.float32]:
    """The real numbers that quantized integers stand for."""
    return (quantized.astype(np.float32) - np.asarray(zero_point, np.float32)) * np.asarray(scale, np.float32)
