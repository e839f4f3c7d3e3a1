"""Streaming histograms of real values and the ranges read from them. Memory is fixed however many values come."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

BINS = 8192
"""Of each sign 16 for each level of 8 bits, as entropy calibration wants."""
NARROWEST = 2.0**-100
"""The least bound but 0: bins of subnormal width cannot be told apart."""
_WIDEST = 2.0**100
"""Above this torch's counting overflows float32."""
_EXACT = 1 << 24
"""Values counted at once: torch counts in float32, exact up to here."""


@dataclass(frozen=True)
class Histogram:
    """Counts in `BINS` equal bins over [-bound, bound], with the exact extremes and the number of non-finite values."""

    counts: NDArray[np.int64]
    bound: float
    low: float
    high: float
    non_finite: int

    @classmethod
    def empty(cls) -> "Histogram":
        """A histogram of nothing: the bound is chosen by the first values."""
        return cls(np.zeros(BINS, np.int64), 0.0, np.inf, -np.inf, 0)


def add(histogram: Histogram, values: torch.Tensor) -> Histogram:
    """The histogram with `values` counted in; the bound doubles, merging bins two by two, until they fit."""
    if not values.numel():
        return histogram
    low, high = (float(each) for each in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = values[values.isfinite()]
        kept = add(histogram, finite)
        return replace(kept, non_finite=kept.non_finite + values.numel() - finite.numel())
    counts, bound = _widen(histogram.counts, histogram.bound, max(-low, high))
    # A bound of 0 means that only zeros came so far; a range of any width puts them in the bin right of the middle.
    edge = bound or 1.0
    if edge > _WIDEST:
        values, edge = values * 2.0**-32, edge * 2.0**-32
    for part in torch.split(values.flatten(), _EXACT):
        counts = counts + torch.histc(part, BINS, -edge, edge).cpu().numpy().astype(np.int64)
    return Histogram(counts, bound, min(histogram.low, low), max(histogram.high, high), histogram.non_finite)


def central_range(histogram: Histogram, percent: float) -> tuple[float, float]:
    """The range that leaves half of `100 - percent` % of the finite values out at either end, and holds 0.

    Exact to one bin width. `percent` is above 50 and at most 100; 100 gives the exact extremes.
    """
    if not np.isfinite(histogram.low):
        return 0.0, 0.0
    tail = (1 - percent / 100) / 2 * histogram.counts.sum()
    width = 2 * histogram.bound / BINS
    below = np.cumsum(histogram.counts)
    above = np.cumsum(histogram.counts[::-1])
    low = -histogram.bound + width * np.searchsorted(below, tail, side="right")
    high = histogram.bound - width * np.searchsorted(above, tail, side="right")
    return min(max(low, histogram.low), 0.0), max(min(high, histogram.high), 0.0)


def _widen(counts: NDArray[np.int64], bound: float, largest: float) -> tuple[NDArray[np.int64], float]:
    if bound == 0.0:
        return counts, max(largest, NARROWEST) if largest else 0.0
    while bound < largest:
        pairs = counts.reshape(-1, 2).sum(axis=1)
        counts = np.pad(pairs, BINS // 4)
        bound *= 2
    return counts, bound
