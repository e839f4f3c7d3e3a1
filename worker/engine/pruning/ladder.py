"""The order in which units of groups go, from the first to the last that may. Numbers alone.

A group's units go from the least important on, in blocks that leave a multiple of channels; every block has a key, and
the blocks of all groups go in the order of their keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """Units of one group that go at once. `after`: the share of it that is gone then; `middle`: half way there."""

    group: int
    units: Units
    after: float
    middle: float

    @property
    def before(self) -> float:
        """The share of the group that is gone before."""
        return 2 * self.middle - self.after


def cut_blocks(group: int, units: Units, *, width: int, multiple: int, most: float, gone: int = 0) -> list[Block]:
    """Blocks of `units`, sorted from the least important; `width` channels each, of which a `multiple` stays.

    No more than the share `most` goes, and at least one unit stays. None where no multiple can be left. Shares are of
    `units` and those `gone` before, so that blocks begin and end where they did then.
    """
    total, present = len(units) + gone, len(units)
    left = [kept for kept in range(present - 1, 0, -1) if kept * width % multiple == 0 and total - kept <= most * total]
    stops = [gone, *(total - kept for kept in left)]
    return [
        Block(group, units[start - gone : end - gone], end / total, (start + end) / 2 / total)
        for start, end in pairwise(stops)
    ]


def in_order(blocks: Sequence[Sequence[Block]], keys: Sequence[Numbers]) -> list[Block]:
    """The blocks of all groups by their keys; those of a group keep their order, with the highest key so far."""
    flat = [block for own in blocks for block in own]
    heights = np.concatenate([np.zeros(0), *(np.maximum.accumulate(own) for own in keys if len(own))])
    return [flat[place] for place in np.argsort(heights, kind="stable")]


def score_keys(blocks: Sequence[Block], scores: Numbers, units: Units) -> Numbers:
    """The mean score of each block over the mean of the whole group, `units`: comparable between groups."""
    mean = float(scores[units].mean()) or 1.0
    return np.array([float(scores[block.units].mean()) / mean for block in blocks])
