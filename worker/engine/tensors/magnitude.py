"""Which weights are smallest: exact masks for unstructured pruning, ties broken by position."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


def smallest(weights: Floats, amount: float) -> Mask:
    """True for exactly `round(amount * size)` weights: those of smallest magnitude, earlier ones first among equals."""
    return smallest_of_all([weights], amount)[0]


def smallest_of_all(tensors: Sequence[Floats], amount: float) -> list[Mask]:
    """The same with one threshold over all tensors; earlier tensors lose their ties first."""
    total = sum(tensor.size for tensor in tensors)
    count = round(amount * total)
    if count == 0:
        return [np.zeros(tensor.shape, bool) for tensor in tensors]
    magnitudes = np.concatenate([magnitude(tensor).ravel() for tensor in tensors])
    threshold = np.partition(magnitudes, count - 1)[count - 1]
    mask = magnitudes < threshold
    tied = np.flatnonzero(magnitudes == threshold)
    mask[tied[: count - int(mask.sum())]] = True
    ends = np.cumsum([tensor.size for tensor in tensors])[:-1]
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(mask, ends), tensors, strict=True)]


def magnitude(weights: Floats) -> Floats:
    """|w|, in at least float32: bfloat16 and float16 have no type in common."""
    return np.abs(weights) if weights.dtype == np.float64 else np.abs(weights.astype(np.float32))
