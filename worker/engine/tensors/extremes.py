"""Running smallest and largest finite value, and whether all were finite. Memory is two numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Extremes:
    """`low` > `high` until a finite value came."""

    low: float = np.inf
    high: float = -np.inf
    are_finite: bool = True

    @property
    def largest(self) -> float:
        """The largest magnitude, 0 before the first finite value."""
        return max(-self.low, self.high, 0.0)


def widen(extremes: Extremes, values: NDArray[np.floating]) -> Extremes:
    """The extremes with `values` counted in."""
    if not values.size:
        return extremes
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high):
        return Extremes(min(extremes.low, low), max(extremes.high, high), extremes.are_finite)
    finite = values[np.isfinite(values)]
    kept = widen(extremes, finite)
    return Extremes(kept.low, kept.high, are_finite=False)
