"""Entropy calibration (Migacz 2017, 8-bit Inference with TensorRT): the range that keeps most of a distribution.

Legend: B bins, C candidates, L levels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine.tensors.histogram import BINS, Histogram, central_range

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_MIDDLE = BINS // 2
_STRIDE = 8
"""Bins between candidates: a range is found to 1/512 of the bound."""


@dataclass(frozen=True)
class Windows:
    """Candidate ranges as half-open spans of bins, all at least L wide. `begins`, `ends`: [C]."""

    begins: Counts
    ends: Counts

    def shares(self, levels: int) -> Counts:
        """[C, L + 1] the bins at which levels begin, when they share each window equally."""
        widths = (self.ends - self.begins)[:, None]
        return np.asarray(self.begins[:, None] + np.arange(levels + 1) * widths // levels)


def find_least_divergence(histogram: Histogram, *, levels: int, symmetric: bool) -> tuple[float, float]:
    """The range whose quantized distribution diverges least from that of the values clipped to it.

    Ranges end at equal distances from 0, or at the extreme of a sign that ends sooner. The exact extremes where the
    histogram is too coarse to judge `levels`.
    """
    counts, middle = _without_zeros(histogram.counts), _MIDDLE
    if symmetric:
        counts, middle, levels = counts[middle:] + counts[:middle][::-1], 0, (levels + 1) // 2
    occupied = np.flatnonzero(counts)
    if not len(occupied):
        return central_range(histogram, 100)
    below, above = max(middle - int(occupied[0]), 0), max(int(occupied[-1]) + 1 - middle, 0)
    reaches = np.arange(max(below, above), 0, -_STRIDE)
    windows = Windows(middle - np.minimum(reaches, below), middle + np.minimum(reaches, above))
    fine = windows.ends - windows.begins >= levels
    if not fine.any():
        return central_range(histogram, 100)
    windows = Windows(windows.begins[fine], windows.ends[fine])
    best = histogram.bound / _MIDDLE * float(reaches[np.argmin(divergences(counts, windows, levels))])
    low, high = max(histogram.low, -best), min(histogram.high, best)
    return min(low, 0.0), max(high, 0.0)


def divergences(counts: Counts, windows: Windows, levels: int) -> Floats:
    """[C] Kullback-Leibler divergence, nats, of counts [B] quantized in each window from the counts clipped to it.

    Quantized: a level's mass is spread evenly over its occupied bins. Infinite where values are clipped to a bin that
    holds none.
    """
    shares, begins, ends = windows.shares(levels), windows.begins, windows.ends
    within, occupied, information = (
        np.concatenate([[0], np.cumsum(each)]) for each in (counts, counts > 0, _x_log_x(counts))
    )
    mass = np.diff(within[shares], axis=1)
    heights = _log(mass) - _log(np.diff(occupied[shares], axis=1))
    first, last = counts[begins], counts[ends - 1]
    under, over = within[begins], within[-1] - within[ends]
    reference = information[ends] - information[begins]
    reference += _x_log_x(first + under) - _x_log_x(first) + _x_log_x(last + over) - _x_log_x(last)
    quantized = np.sum(mass * heights, axis=1) + under * heights[:, 0] + over * heights[:, -1]
    found = (reference - quantized) / within[-1] + _log(within[ends] - within[begins]) - _log(within[-1])
    return np.where(((first == 0) & (under > 0)) | ((last == 0) & (over > 0)), np.inf, found)


def _without_zeros(counts: Counts) -> Counts:
    """Exact zeros lie right of the middle; every range has them, and after a ReLU they would drown all else."""
    others = max(counts[_MIDDLE - 1], counts[_MIDDLE + 1])
    return np.where(np.arange(BINS) == _MIDDLE, np.minimum(counts, others), counts)


def _log(counts: Counts) -> Floats:
    """0 for 0."""
    return np.log(np.maximum(counts, 1))


def _x_log_x(counts: Counts) -> Floats:
    return counts * _log(counts)
