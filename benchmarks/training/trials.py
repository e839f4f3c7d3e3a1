"""A trial: one recipe on one model, once for each seed, and what came out. Which trials there are is the sections'."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts.events import Trained
from worker.engine.tensors.intervals import Z95

Step = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A recipe under the name it has in the tables; without steps it is the model as it is."""

    name: str
    recipe: Sequence[Step]


@dataclass(frozen=True)
class Run:
    """A trial with one seed. `right` [N]: which test samples ONNX Runtime gets right with the artifact.

    `macs`: left of the original's. `train_s`: from the state before the first update to the last that was judged.
    """

    seed: int
    artifact: Path
    right: NDArray[np.bool_]
    macs: float
    train_s: float
    total_s: float
    curve: Sequence[Trained] = ()


@dataclass(frozen=True)
class Result:
    """All runs of a trial, or why one of them failed."""

    case: str
    trial: Trial
    runs: Sequence[Run]
    failure: str = ""

    @cached_property
    def top1(self) -> float | None:
        """Percent, the mean over seeds; None after a failure."""
        return None if self.failure else float(self.shares.mean() * 100)

    @cached_property
    def noise(self) -> float:
        """Half of the 95 % interval of `top1` over test samples, points."""
        return half_interval(self.shares)

    @property
    def shares(self) -> NDArray[np.float64]:
        """[N] For each test sample the share of the runs that got it right."""
        shares: NDArray[np.float64] = np.mean([run.right for run in self.runs], axis=0)
        return shares

    @property
    def updates(self) -> int:
        """Of the weights, in one run, over all of its trainings."""
        last: dict[tuple[int, int | None], int] = {}
        for point in self.runs[0].curve if self.runs else ():
            last[point.step, point.round] = point.updates
        return sum(last.values())

    def mean(self, what: Callable[[Run], float]) -> float | None:
        """Over the runs; None after a failure."""
        return None if self.failure else float(np.mean([what(run) for run in self.runs]))

    def as_json(self) -> dict[str, Any]:
        """Every figure, but not each sample's."""
        runs = [
            {"seed": run.seed, "top1": float(run.right.mean() * 100), "macs": run.macs}
            | {"train_s": run.train_s, "total_s": run.total_s}
            | {"curve": [point.model_dump(mode="json") for point in run.curve]}
            for run in self.runs
        ]
        about = {"case": self.case, "trial": self.trial.name, "recipe": list(self.trial.recipe)}
        noise = None if self.failure else self.noise
        return about | {"top1": self.top1, "noise": noise, "runs": runs, "failure": self.failure}


@dataclass(frozen=True)
class Difference:
    """How much better one trial is than another on the same test samples, in points of top-1.

    `noise`: half of its 95 % interval over test samples, pair by pair. `by_seed`: the difference of each seed's runs.
    """

    value: float
    noise: float
    by_seed: Sequence[float]

    @classmethod
    def between(cls, better: Result, worse: Result) -> "Difference | None":
        """None where one has failed."""
        if better.failure or worse.failure:
            return None
        each = better.shares - worse.shares
        by_seed = [
            float((mine.right.mean() - theirs.right.mean()) * 100)
            for mine, theirs in zip(better.runs, worse.runs, strict=False)
        ]
        return cls(float(each.mean() * 100), half_interval(each), by_seed)

    def told(self) -> str:
        """Whether it is more than noise, and what it was with each seed."""
        judged = "within noise" if abs(self.value) <= self.noise else "beyond noise"
        seeds = " / ".join(f"{each:+.2f}" for each in self.by_seed) if len(self.by_seed) > 1 else ""
        return f"{judged} of ±{self.noise:.2f}" + (f"; by seed {seeds}" if seeds else "")


def half_interval(values: NDArray[np.float64]) -> float:
    """Half of the 95 % interval of the mean of `values` [N], in points where they are shares."""
    return float(Z95 * values.std(ddof=1) / np.sqrt(len(values)) * 100)
