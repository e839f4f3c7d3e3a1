"""The calibrators: ranges of real numbers to quantize to, read from histograms. Nothing is counted or quantized here.

Legend: B bins of one sign, C candidates. A reach is the distance of a range's end from 0.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker.engine.tensors.divergence import find_least_divergence
from worker.engine.tensors.histogram import BINS, Histogram, central_range

Calibrator = Literal["minmax", "percentile", "entropy", "mse"]
Range = tuple[float, float]
Floats = NDArray[np.float64]

_MIDDLE = BINS // 2
_STRIDE = 8
"""Bins between the candidates tried first."""
_ROUNDS = 10
"""At most so often both ends are improved in turn; three times mostly do."""


def find_range(
    histogram: Histogram, calibrator: Calibrator, *, levels: int, symmetric: bool, percentile: float = 100.0
) -> Range:
    """The real numbers that `levels` integers are to stand for: low <= 0 <= high, and low = -high for `symmetric`.

    (0, 0) where nothing but zeros was seen. `percentile` is that of `central_range`.
    """
    match calibrator:
        case _ if not histogram.bound:
            low, high = 0.0, 0.0
        case "minmax":
            low, high = central_range(histogram, 100)
        case "percentile":
            low, high = central_range(histogram, percentile)
            if low == high:  # all but a few are zeros: those few must not vanish
                low, high = central_range(histogram, 100)
        case "entropy":
            low, high = find_least_divergence(histogram, levels=levels, symmetric=symmetric)
        case "mse":
            low, high = _find_least_error(histogram, levels, symmetric=symmetric)
    largest = float(max(-low, high))
    return (-largest, largest) if symmetric else (float(low), float(high))


def _find_least_error(histogram: Histogram, levels: int, *, symmetric: bool) -> Range:
    """The range of least error energy: rounding inside, clipping outside. Exact to about one bin width."""
    width, counts = histogram.bound / _MIDDLE, histogram.counts
    below = _Side.of(counts[:_MIDDLE][::-1], width, max(-histogram.low, 0.0))
    above = _Side.of(counts[_MIDDLE:], width, max(histogram.high, 0.0))
    if symmetric:
        reach = np.maximum(below.edges, above.edges)
        steps = 2 * reach / (levels - 1)
        best = float(reach[np.argmin(below.error(reach, steps) + above.error(reach, steps))])
        return -best, best
    lows, highs = below.edges[::_STRIDE], above.edges[::_STRIDE]
    low, high = _improve_in_turn(below, above, (lows, highs), levels)
    near = below.near(low), above.near(high)
    low, high = _improve_in_turn(below, above, near, levels)
    return 0.0 - low, high


def _improve_in_turn(
    below: "_Side", above: "_Side", candidates: tuple[Floats, Floats], levels: int
) -> tuple[float, float]:
    """The reaches below and above 0 of least error; it is near to convex in both, so that this finds the least."""
    lows, highs = candidates
    low, high = float(lows[-1]), float(highs[-1])
    for _ in range(_ROUNDS):
        was = low, high
        steps = (low + highs) / (levels - 1)
        high = float(highs[np.argmin(above.error(highs, steps) + below.error(low, steps))])
        steps = (lows + high) / (levels - 1)
        low = float(lows[np.argmin(below.error(lows, steps) + above.error(high, steps))])
        if (low, high) == was:
            break
    return low, high


@dataclass(frozen=True)
class _Side:
    """The magnitudes of one sign."""

    edges: Floats
    """[B + 1] of the bins, from 0 up; what lies above the largest magnitude is set to that."""
    moments: Floats
    """[3, B + 1] number, sum and energy of the magnitudes below each edge."""

    @classmethod
    def of(cls, counts: NDArray[np.int64], width: float, largest: float) -> "_Side":
        """From counts [B] in bins of `width` that begin at 0. Those of the last bin in use count as the largest."""
        edges = np.minimum(width * np.arange(len(counts) + 1), largest)
        is_last = edges[1:] == largest
        centres = np.where(is_last, largest, (edges[1:] + edges[:-1]) / 2)
        variances = np.where(is_last, 0.0, width**2 / 12)
        moments = counts * np.stack([np.ones_like(centres), centres, centres**2 + variances])
        return cls(edges, np.pad(np.cumsum(moments, axis=1), ((0, 0), (1, 0))))

    def near(self, reach: float) -> Floats:
        """The edges around `reach`."""
        at = int(np.searchsorted(self.edges, reach))
        return self.edges[max(at - _STRIDE, 0) : at + _STRIDE + 1]

    def error(self, reach: Floats | float, step: Floats) -> Floats:
        """Error energy [C] of these magnitudes in a range that ends at `reach`, with levels `step` apart.

        What lies half a step around 0 becomes 0, what lies half a step around the end or beyond it becomes the end;
        the rest errs by step^2 / 12 in the mean (Bennett 1948).
        """
        half = np.minimum(step, reach) / 2
        start, end = self._moments_below(half), self._moments_below(reach - half)
        number, total, energy = self.moments[:, -1, None] - end
        between = np.maximum(end[0] - start[0], 0.0)
        return np.asarray(start[2] + between * step**2 / 12 + energy - 2 * reach * total + reach**2 * number)

    def _moments_below(self, edge: Floats) -> Floats:
        return np.stack([np.interp(edge, self.edges, each) for each in self.moments])
