"""The third section: top-1 of one-shot pruning with statistics estimated again, by the same criterion as the peer's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.comparison.data import Split, load_cifar, load_digits
from benchmarks.pruning.classifiers import load_classifier
from benchmarks.pruning.pruners.order import Answer
from benchmarks.pruning.running import Run, Runner
from worker.engine.graph import Graph
from worker.engine.graph.cost import macs
from worker.engine.session import open_session, run_session

AMOUNT = 0.3
CRITERIA: Mapping[str, int] = {"l1": 1, "l2": 2}
"""By our name the norm that the peer takes."""
CLASSIFIERS: Mapping[str, Callable[[Path, int], tuple[Split, Split]]] = {
    "resnet20_cifar10_jpegtuned": load_cifar,
    "digits32_resnet18": load_digits,
}
CLOSE = 1e-4
"""How far the outputs of the peer's native module may be from the file's."""
_BATCH, _TRIED = 100, 64


@dataclass(frozen=True)
class Score:
    """One pruned classifier. `original` and `top1` in percent, `macs` a share of the original's."""

    case: str
    tool: str
    criterion: str
    original: float
    top1: float | None
    macs: float | None
    failure: str | None


@dataclass(frozen=True)
class Comparison:
    """By one criterion. `equal`: ours with as many MACs as theirs, which rounds shares of channels another way."""

    ours: Score
    theirs: Score
    equal: Score | None = None

    @property
    def scores(self) -> list[Score]:
        """All there are."""
        return [self.ours, self.theirs, *([self.equal] if self.equal else [])]


@dataclass(frozen=True)
class Contest:
    """A classifier and its data, calibration samples as a file too."""

    name: str
    model: Path
    pool: Split
    calibrate: Path
    held_out: Split

    @classmethod
    def prepare(cls, name: str, shared: Path, samples: int, evaluate: int | None, folder: Path) -> "Contest":
        """Read the data."""
        pool, held_out = CLASSIFIERS[name](shared, samples)
        calibrate = pool.save(folder / f"{name}.npz")
        return cls(name, shared / "models" / f"{name}.onnx", pool, calibrate, held_out.sample(evaluate))

    def measure(self, runner: Runner, tell: Callable[[str], None]) -> list[Comparison]:
        """Both tools by every criterion."""
        return [self._compare(runner, tell, *criterion) for criterion in CRITERIA.items()]

    def _compare(self, runner: Runner, tell: Callable[[str], None], criterion: str, norm: int) -> Comparison:
        tell(f"{self.name}: accuracy, {criterion}")
        ours = self._score("slimline", criterion, self._prune(runner, criterion, f"amount={AMOUNT}"))
        theirs = self._score("Torch-Pruning", criterion, self._prune_native(runner, norm))
        if theirs.macs is None:
            return Comparison(ours, theirs)
        run = self._prune(runner, criterion, f"target.macs={theirs.macs:.4f}")
        return Comparison(ours, theirs, self._score("slimline, = MACs", criterion, run))

    def _prune_native(self, runner: Runner, norm: int) -> Run:
        """With the peer, if its native module computes what the file does."""
        if self._distance > CLOSE:
            return Run(Answer(failure=f"its native module's outputs are {self._distance:.1g} from the file's"), None)
        options = {"model": self.model, "calibrate": self.calibrate, "amount": AMOUNT, "norm": norm}
        return runner.run_peer(self.name, options)

    def _prune(self, runner: Runner, criterion: str, options: str) -> Run:
        return runner.run_ours(self.model, f"prune.structured:{options},criterion={criterion}", self.calibrate)

    def _score(self, tool: str, criterion: str, run: Run) -> Score:
        if run.model is None:
            return Score(self.name, tool, criterion, self._original, None, None, run.answer.failure)
        before, after = (macs(Graph.load(path)) for path in (self.model, run.model))
        left = after / before if before and after is not None else None
        return Score(self.name, tool, criterion, self._original, self._top1(run.model), left, None)

    @cached_property
    def _original(self) -> float:
        return self._top1(self.model)

    @cached_property
    def _distance(self) -> float:
        """Of the native module's outputs from the file's."""
        x = self.held_out.x[:_TRIED]
        with torch.no_grad():
            native = load_classifier(self.name, self.model, torch.from_numpy(self.pool.x))(torch.from_numpy(x)).numpy()
        return float(np.abs(native - _scores(self.model, x)).max())

    def _top1(self, model: Path) -> float:
        return float((_scores(model, self.held_out.x).argmax(1) == self.held_out.y).mean() * 100)


def _scores(model: Path, x: np.ndarray) -> np.ndarray:
    session = open_session(model)
    (name,) = (each.name for each in session.get_inputs())
    return np.concatenate([run_session(session, {name: x[at : at + _BATCH]})[0] for at in range(0, len(x), _BATCH)])
