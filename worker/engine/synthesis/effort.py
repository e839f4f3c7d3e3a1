"""How much work synthesising takes: samples, batches and steps, from what a graph costs and never from the clock."""

from dataclasses import dataclass

from worker.engine.graph import Graph
from worker.engine.graph.cost import macs

_MOST_STEPS, _FEWEST_STEPS, _FEWEST_SAMPLES = 60, 20, 16
"""More steps made it no better on any model tried, and worse on some."""
_BUDGET = 5 * 10**11
"""Multiply-accumulates to spend, as far as the fewest steps and samples allow: these cost some 1000 runs forward."""
_PASSES = 3
"""What a step costs in runs forward: one of them, and the gradients."""
_MOST_ROWS, _FEWEST_ROWS, _BATCH_BYTES = 32, 8, 4 << 20


@dataclass(frozen=True)
class Effort:
    """Samples in a batch, batches, and steps of improving each batch."""

    rows: int
    batches: int
    steps: int

    @property
    def samples(self) -> int:
        """In all."""
        return self.rows * self.batches


def plan(graph: Graph, rows: int, count: int) -> Effort:
    """Fewer steps for a dear graph, then fewer samples than `count`; both the fewest where its cost is unknown."""
    cost = macs(graph)
    passes = _BUDGET // (_PASSES * max(1, cost)) if cost is not None else 0
    steps = min(_MOST_STEPS, max(_FEWEST_STEPS, passes // count))
    samples = min(count, max(_FEWEST_SAMPLES, passes // steps))
    return Effort(rows, -(-samples // rows), steps)


def rows_for(sample_bytes: int) -> int:
    """Samples in a batch that keep memory flat, enough of them for statistics."""
    return min(_MOST_ROWS, max(_FEWEST_ROWS, _BATCH_BYTES // max(1, sample_bytes)))
