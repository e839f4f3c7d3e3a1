"""Stored samples to model inputs: resize, channel order, scale, mean and std, layout. Pure functions on arrays.

Legend: N samples, C channels, H height, W width.
"""

import numpy as np

from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Layout, Preprocess
from worker.engine.data.source import Array

_IMAGE_RANK = 4


def apply(stored: Array, how: Preprocess, *, resized: bool = False) -> Array:
    """A batch as the model wants it, float32 unless nothing had to be computed.

    `stored` is N x anything, channels where `how.stored_layout` (or else `how.layout`) has them: axis 1 or the last.
    `resized`: the samples already have the size that `how.resize` asks for. Raises SlimlineError PREPROCESS_MISMATCH.
    """
    stored_layout = how.stored_layout or how.layout
    if how.resize and not resized:
        stored = _resize(stored, how.resize, stored_layout)
    axis = _channel_axis(stored, stored_layout)
    if how.channel_order == "bgr":
        _refuse_unless(stored.ndim == _IMAGE_RANK, "channel_order needs images: arrays of 4 dimensions", stored)
        stored = np.flip(stored, axis)
    if how.scale != 1 or how.mean or how.std:
        stored = _normalize(stored.astype(np.float32), how, axis)
    if stored.ndim == _IMAGE_RANK and stored_layout != how.layout:
        stored = np.moveaxis(stored, axis, _channel_axis(stored, how.layout))
    contiguous: Array = np.ascontiguousarray(stored)
    return contiguous


def _normalize(values: Array, how: Preprocess, axis: int) -> Array:
    """(x * scale - mean) / std in float32, one value per channel or one for all."""
    values = values * np.float32(how.scale)
    if how.mean:
        values = values - _per_channel(how.mean, "mean", values, axis)
    if how.std:
        values = values / _per_channel(how.std, "std", values, axis)
    return values


def _per_channel(numbers: list[float], what: str, values: Array, axis: int) -> Array:
    given = np.asarray(numbers, np.float32)
    if given.size == 1:
        return given
    _refuse_unless(
        values.ndim > 1 and values.shape[axis] == given.size,
        f"{what} has {given.size} values, the samples have {values.shape[axis]} channels on axis {axis}",
        values,
    )
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    return given.reshape(shape)


def _channel_axis(values: Array, layout: Layout) -> int:
    return values.ndim - 1 if layout == "nhwc" or values.ndim == 1 else 1


def _resize(stored: Array, size: tuple[int, int], layout: Layout) -> Array:
    """Bilinear with antialiasing, along H and W of N x C x H x W or N x H x W x C."""
    _refuse_unless(stored.ndim == _IMAGE_RANK, "resize needs images: arrays of 4 dimensions", stored)
    first = 1 if layout == "nhwc" else 2
    values = stored.astype(np.float32)
    for axis, target in zip((first, first + 1), size, strict=True):
        matrix = _bilinear(values.shape[axis], target)
        values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def _bilinear(source: int, target: int) -> Array:
    """Target x source weights of a triangle filter over pixel centres, widened when shrinking so that it averages."""
    ratio = source / target
    support = max(ratio, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * ratio
    distance = np.abs(np.arange(source)[None, :] + 0.5 - centre) / support
    weights = np.clip(1 - distance, 0, None)
    normalized: Array = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normalized


def _refuse_unless(holds: bool, what: str, values: Array) -> None:  # noqa: FBT001 - a condition, as in assert
    if not holds:
        raise SlimlineError(
            "PREPROCESS_MISMATCH",
            f"{what}; samples of shape {list(values.shape[1:])}",
            hint="fix the dataset's or the job's `preprocess`, or store the samples as the model wants them",
        )
