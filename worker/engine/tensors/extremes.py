"""Running smallest and largest finite value, and whether all were finite. Memory is two numbers."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Extremes:
    """`low` > `high` until a finite value came."""

    low: float = math.inf
    high: float = -math.inf
    are_finite: bool = True

    @property
    def largest(self) -> float:
        """The largest magnitude, 0 before the first finite value."""
        return max(-self.low, self.high, 0.0)


def widen(extremes: Extremes, values: torch.Tensor) -> Extremes:
    """The extremes with `values` counted in."""
    if not values.numel():
        return extremes
    low, high = (float(each) for each in torch.aminmax(values))
    if math.isfinite(low) and math.isfinite(high):
        return Extremes(min(extremes.low, low), max(extremes.high, high), extremes.are_finite)
    kept = widen(extremes, values[values.isfinite()])
    return Extremes(kept.low, kept.high, are_finite=False)
