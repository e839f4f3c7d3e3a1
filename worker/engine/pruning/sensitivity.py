"""What each group of channels loses at several shares, removed alone, measured; and the order that follows from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups
from worker.engine.measure.comparison import Judge
from worker.engine.pruning.ladder import Block
from worker.engine.session import open_graph

Numbers = NDArray[np.float64]
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_SILENT_DB = 100.0
"""Above this SQNR a loss counts as that: differences are rounding."""


@dataclass(frozen=True)
class Curve:
    """Of one group: what the outputs lose, error energy over signal, where a share of it is gone; and what that saves.

    The first point is (0, 0, 0), or has the share that is gone already.
    """

    shares: Numbers
    losses: Numbers
    savings: Numbers

    def keys(self, blocks: Sequence[Block]) -> Numbers:
        """Loss for what is saved by each block: by the lower convex hull of the curve, so that it never falls."""
        hull = lower_hull(self.savings, self.losses)
        starts = np.interp([block.before for block in blocks], self.shares, self.savings)
        ends = np.interp([block.after for block in blocks], self.shares, self.savings)
        losses = [np.interp(points, self.savings[hull], self.losses[hull]) for points in (starts, ends)]
        return (losses[1] - losses[0]) / np.maximum(ends - starts, np.finfo(float).tiny)


def scan(
    groups: Groups,
    blocks: Sequence[Sequence[Block]],
    judge: Judge,
    saving: Callable[[Graph], float],
    progress: Callable[[float], None],
) -> list[Curve]:
    """The curve of each group, whose blocks are in the order in which they go; `saving` of a graph is 0 to 1."""
    curves = []
    for place, own in enumerate(blocks):
        begin = own[0].before if own else 0.0
        points = [(begin, 0.0, 0.0), *(_measure(groups, own[:count], judge, saving) for count in _stops(own))]
        curves.append(Curve(*np.array(sorted(points)).T))
        progress((place + 1) / len(blocks))
    return curves


def lower_hull(x: Numbers, y: Numbers) -> list[int]:
    """The points of the lower convex hull of a curve over growing `x`, from the first to the last."""
    kept: list[int] = []
    for point in range(len(x)):
        while len(kept) > 1 and _turns_down(x, y, kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return kept


def _turns_down(x: Numbers, y: Numbers, first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or above the line between the others."""
    return bool((y[middle] - y[first]) * (x[last] - x[first]) >= (y[last] - y[first]) * (x[middle] - x[first]))


def _stops(blocks: Sequence[Block]) -> list[int]:
    """How many blocks are gone where a curve is measured: nearest to each share."""
    gone = np.array([block.after for block in blocks])
    return sorted({int(np.abs(gone - share).argmin()) + 1 for share in SHARES}) if len(blocks) else []


def _measure(
    groups: Groups, blocks: Sequence[Block], judge: Judge, saving: Callable[[Graph], float]
) -> tuple[float, float, float]:
    pruned = groups.remove([int(unit) for block in blocks for unit in block.units])
    sqnr_db = min(judge.compare(open_graph(pruned)), _SILENT_DB)
    return blocks[-1].after, float(10 ** (-sqnr_db / 10)), saving(pruned)
