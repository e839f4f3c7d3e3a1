"""Carries trials out: compresses as a user would, and tests what comes out. What a trial is, is said in `trials`."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.contracts.events import EngineEvent, Trained
from app.contracts.failure import SlimlineError
from benchmarks.comparison.data import Split
from benchmarks.training.material import Material
from benchmarks.training.trials import Result, Run, Trial
from worker.engine import compress
from worker.engine.session import open_session, run_session

Tell = Callable[[str], None]
_BATCH = 100


@dataclass(frozen=True)
class Bench:
    """Carries trials out. Artifacts go to `folder`."""

    folder: Path
    seeds: Sequence[int]
    tell: Tell
    _numbers: Iterator[int] = field(default_factory=count)

    def measure(self, material: Material, trial: Trial) -> Result:
        """With every seed; a trial without steps has nothing to draw, and is run once."""
        runs = list[Run]()
        for seed in self.seeds if trial.recipe else self.seeds[:1]:
            self.tell(f"{material.name}: {trial.name}, seed {seed}")
            try:
                runs.append(self._run(material, trial, seed))
            except SlimlineError as error:
                return Result(material.name, trial, runs, str(error))
        return Result(material.name, trial, runs)

    def _run(self, material: Material, trial: Trial, seed: int) -> Run:
        if not trial.recipe:
            return Run(seed, material.model, get_right(material.model, material.test), 1.0, 0.0, 0.0)
        output = self.folder / f"{next(self._numbers)}.onnx"
        return carry_out(material, trial, seed, output)


def carry_out(material: Material, trial: Trial, seed: int, output: Path) -> Run:
    """Compress as a user would, and test the artifact. Raises what `compress` raises."""
    clock, started = _Clock(), time.perf_counter()
    result = compress(
        material.model,
        recipe=list(trial.recipe),
        output=output,
        calibrate=material.calibrate,
        train=material.train,
        seed=seed,
        on_event=clock,
    )
    total_s = time.perf_counter() - started
    left = result.comparison.ratios.macs if result.comparison.ratios else None
    right = get_right(output, material.test)
    return Run(seed, output, right, 1.0 if left is None else left, clock.seconds, total_s, clock.curve)


def get_right(model: Path, test: Split) -> NDArray[np.bool_]:
    """[N] Whether the highest score that ONNX Runtime gives is the label's."""
    session = open_session(model)
    (name,) = (each.name for each in session.get_inputs())
    batches = (test.x[start : start + _BATCH] for start in range(0, len(test.x), _BATCH))
    scores = np.concatenate([run_session(session, {name: batch})[0] for batch in batches])
    right: NDArray[np.bool_] = scores.argmax(1) == test.y
    return right


class _Clock:
    """Keeps the loss curve, and adds up the time between the first and the last point of each training."""

    def __init__(self) -> None:
        self.curve: list[Trained] = []
        self._times: dict[tuple[int, int | None], list[float]] = {}

    def __call__(self, event: EngineEvent) -> None:
        if isinstance(event, Trained):
            self.curve.append(event)
            self._times.setdefault((event.step, event.round), []).append(time.perf_counter())

    @property
    def seconds(self) -> float:
        return sum(times[-1] - times[0] for times in self._times.values())
