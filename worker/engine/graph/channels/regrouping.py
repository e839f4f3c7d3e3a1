"""Which factors the axes of a shape are made of before and after a reshape. Numbers alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul


@dataclass(frozen=True)
class Regrouping:
    """A reshape as factors in a row: each axis before and after is the product of neighbouring ones.

    Axes of size 1 are the product of none.
    """

    sizes: tuple[int, ...]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]

    def is_like(self, other: "Regrouping") -> bool:
        """Whether the axes are made of the same factors, whatever their sizes."""
        return self.before == other.before and self.after == other.after


def regroup(before: Sequence[int], after: Sequence[int]) -> Regrouping | None:
    """The coarsest factors; None where there are none: [4, 6] to [3, 8] mixes both axes."""
    if math.prod(before) != math.prod(after) or 0 in before:
        return None
    cuts = sorted({1, *accumulate(before, mul), *accumulate(after, mul)})
    if any(large % small for small, large in pairwise(cuts)):
        return None
    sizes = tuple(large // small for small, large in pairwise(cuts))
    return Regrouping(sizes, _axes(before, cuts), _axes(after, cuts))


def _axes(shape: Sequence[int], cuts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each axis the factors between the cuts where it begins and ends."""
    ends = [cuts.index(product) for product in accumulate(shape, mul)]
    return tuple(tuple(range(start, end)) for start, end in pairwise([0, *ends]))
