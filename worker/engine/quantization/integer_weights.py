"""The weights of a layer as integers: codes, scales and zero point, and the bias beside them. No graph is edited."""

from dataclasses import dataclass

import numpy as np

from app.contracts.recipe.quantize_static import WeightQuantization
from worker.engine.session import Array
from worker.engine.tensors.affine import (
    IntegerRange,
    affine_parameters,
    best_symmetric_scale,
    dequantize,
    quantize,
    symmetric_scale,
)

LARGEST_BIAS = 2.0**30
"""Of a bias stored as int32: half of the range, so that rounding never overflows."""


@dataclass(frozen=True)
class IntegerWeight:
    """`codes` in the weight's shape; `scale` of shape [channels] along `axis`, or of rank 0 with `axis` None."""

    codes: Array
    scale: Array
    zero_point: int
    axis: int | None
    bits: int

    def floats(self) -> Array:
        """The numbers that the codes stand for."""
        scale = self.scale if self.axis is None else _along(self.scale, self.codes.ndim, self.axis)
        return dequantize(self.codes, scale, self.zero_point)


@dataclass(frozen=True)
class WeightRequest:
    """How a weight becomes integers.

    `smallest_scale` has one element for each channel, or rank 0: what the bias needs to fit. With `is_searched` a
    scale may clip where that lowers the squared error.
    """

    how: WeightQuantization
    bits: int
    used_bits: int
    axis: int
    smallest_scale: Array
    is_searched: bool = False


def to_integers(weight: Array, request: WeightRequest) -> IntegerWeight:
    """The integers of a weight whose elements are all finite."""
    if not request.how.symmetric:
        return _asymmetric(weight, request)
    kept = () if request.how.per_channel is False else (request.axis,)
    scale = _symmetric_scale(weight, kept, request)
    integers = IntegerRange.of(request.used_bits, signed=True, symmetric=True)
    codes = quantize(weight, scale, 0, integers, request.bits)
    return IntegerWeight(codes, scale.reshape(-1 if kept else ()), 0, request.axis if kept else None, request.bits)


def _asymmetric(weight: Array, request: WeightRequest) -> IntegerWeight:
    integers = IntegerRange.of(request.bits, signed=True)
    low, high = float(weight.min(initial=0)), float(weight.max(initial=0))
    scale, zero = affine_parameters(low, high, integers, symmetric=False)
    codes = quantize(weight, scale, zero, integers, request.bits)
    return IntegerWeight(codes, np.array(scale, np.float32), zero, None, request.bits)


def _symmetric_scale(weight: Array, kept: tuple[int, ...], request: WeightRequest) -> Array:
    """Shaped to broadcast; never so small that the bias overflows, and for zero weights just large enough for it."""
    choose = best_symmetric_scale if request.is_searched else symmetric_scale
    scale = choose(weight, kept, request.used_bits)
    smallest = request.smallest_scale.reshape(scale.shape) if kept else request.smallest_scale.max(initial=0)
    reduced = tuple(axis for axis in range(weight.ndim) if axis not in kept)
    is_zero = ~np.abs(weight).any(axis=reduced, keepdims=True)
    return np.where(is_zero & (smallest > 0), smallest, np.maximum(scale, smallest)).astype(np.float32)


def smallest_scale_for(bias: Array | None, input_scale: float, channels: int) -> Array:
    """The least weight scale of each channel with which its bias fits in int32; zeros without a bias."""
    if bias is None:
        return np.zeros(channels)
    return np.abs(bias.astype(np.float64)) / (input_scale * LARGEST_BIAS)


def to_integer_bias(bias: Array, input_scale: float, weight: IntegerWeight) -> tuple[Array, Array]:
    """int32 codes of a bias, shape [channels], and their scales: input scale times weight scale."""
    scale = (np.float32(input_scale) * weight.scale.astype(np.float32)).astype(np.float32)
    limits = np.iinfo(np.int32)
    return np.clip(np.rint(bias.astype(np.float64) / scale), limits.min, limits.max).astype(np.int32), scale


def _along(scale: Array, rank: int, axis: int) -> Array:
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)])
