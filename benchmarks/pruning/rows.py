"""Measures what a pruning left: its size, cost and speed beside the original's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from app.contracts.failure import SlimlineError
from benchmarks.comparison.latency import speed_ups
from benchmarks.pruning.running import Run
from benchmarks.pruning.structure import attention_widths, mlp_widths
from worker.engine.graph.cost import count_weights, macs
from worker.engine.ingest import ingest_model
from worker.engine.session import open_session, run_session

Feed = Mapping[str, NDArray[Any]]
Tool = Literal["slimline", "Torch-Pruning"]
AMOUNTS: Mapping[str, float] = {"30 %": 0.3, "50 %": 0.5}


@dataclass(frozen=True)
class Left:
    """Shares of the original's. `attention`, `mlp`: of the layer that lost least; None where there is none."""

    parameters: float
    macs: float | None
    attention: float | None
    mlp: float | None


@dataclass(frozen=True)
class Pruned:
    """One result. `speed`: the original's latency over its own. `failure`: why there is none, or no good one."""

    run: Run
    left: Left | None = None
    speed: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Row:
    """One tool and one model. `at`: results by what was asked, a key of AMOUNTS or of `equal_to`."""

    case: str
    tool: Tool
    at: Mapping[str, Pruned]

    @property
    def first(self) -> Pruned:
        """The result of the smallest amount: its analysis is that of all."""
        return next(iter(self.at.values()))


def equal_to(amount: str) -> str:
    """Key of a result of ours with as many MACs as the peer's at `amount`."""
    return f"MACs of {amount}"


def look_at(original: Path, run: Run, feed: Feed) -> Pruned:
    """What is left, if the pruned model runs and still gives outputs of the same shapes."""
    if run.model is None:
        return Pruned(run, failure=run.answer.failure or "it left no model")
    try:
        before, after = (run_session(open_session(path, threads=1), feed) for path in (original, run.model))
        if [each.shape for each in before] != [each.shape for each in after]:
            return Pruned(run, failure="outputs have other shapes")
        left = _left(original, run.model, feed)
    except SlimlineError as error:
        return Pruned(run, failure=str(error))
    return Pruned(run, left, failure="prunes nothing" if left.parameters == 1 else None)


def race(original: Path, results: Sequence[Pruned], feed: Feed, seconds: float) -> list[Pruned]:
    """The results with their speed: calls of all of them take turns on one thread."""
    files = [each.run.model for each in results if each.run.model and each.left]
    ratios = iter(speed_ups(original, files, feed, 1, seconds) if files else ())
    return [replace(each, speed=next(ratios)) if each.run.model and each.left else each for each in results]


def _left(original: Path, pruned: Path, feed: Feed) -> Left:
    graphs = [ingest_model(path)[0] for path in (original, pruned)]  # as uploaded, weights may be in Constant nodes
    weights = [count_weights(graph).count for graph in graphs]
    costs = [macs(graph) for graph in graphs]
    return Left(
        weights[1] / weights[0],
        costs[1] / costs[0] if costs[0] and costs[1] is not None else None,
        _most_left(attention_widths(original, feed), attention_widths(pruned, feed)),
        _most_left(mlp_widths(original, feed), mlp_widths(pruned, feed)),
    )


def _most_left(before: Sequence[int], after: Sequence[int]) -> float | None:
    if not before:
        return None
    if len(before) != len(after):
        return math.inf
    return max(small / large for large, small in zip(before, after, strict=True))
