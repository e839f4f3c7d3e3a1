"""`compress()`: the pipeline as one call for people, with paths and plain recipes in and a Result out."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.contracts.events import EngineEvent, Finished, Measured
from app.contracts.job_spec import Device, Task
from app.contracts.measurement import Comparison, StepMeasurement, compare
from app.contracts.preprocess import Preprocess
from app.contracts.recipe import DataRole, Step
from app.contracts.recipe.notation import parse_recipe, validate_recipe
from app.contracts.targets import Targets
from worker.engine.measure.clean import DataFile
from worker.engine.pipeline import run
from worker.engine.stages.job import Job, Result

StrPath = str | Path


def compress(  # noqa: PLR0913 - the engine's one face for people; all but three have defaults
    model: StrPath,
    *,
    recipe: str | list[Any],
    output: StrPath,
    calibrate: StrPath | None = None,
    evaluate: StrPath | None = None,
    train: StrPath | None = None,
    task: Task | None = None,
    targets: Targets | Mapping[str, float] | None = None,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Device = "auto",
    on_event: Callable[[EngineEvent], None] | None = None,
) -> Result:
    """Compress `model` into `output` and measure it.

    `recipe` is the string notation, JSON text, or a list of steps as mappings or models. `preprocess` goes for all
    datasets. Missed targets are in `verdict`; the artifact is written all the same. Raises SlimlineError.
    """
    how = Preprocess.model_validate(preprocess) if preprocess is not None else None
    given = {DataRole.CALIBRATE: calibrate, DataRole.EVALUATE: evaluate, DataRole.TRAIN: train}
    with tempfile.TemporaryDirectory(prefix="slimline-") as workspace:
        job = Job(
            model=Path(model),
            recipe=_steps(recipe),
            output=Path(output),
            workspace=Path(workspace),
            data={role: DataFile(path=Path(path), preprocess=how) for role, path in given.items() if path},
            task=task,
            targets=Targets.model_validate(targets or {}),
            seed=seed,
            device=device,
        )
        rows: list[Measured] = []
        finished = run(job, _Listener(rows, on_event))
    return _result(finished, _comparison(rows))


def _steps(recipe: str | list[Any]) -> list[Step]:
    if isinstance(recipe, str):
        return parse_recipe(recipe)
    return validate_recipe([step.model_dump() if isinstance(step, Step) else step for step in recipe])


class _Listener:
    """Keeps the measured rows and passes every event on."""

    def __init__(self, rows: list[Measured], on_event: Callable[[EngineEvent], None] | None) -> None:
        self._rows, self._on_event = rows, on_event

    def __call__(self, event: EngineEvent) -> None:
        if isinstance(event, Measured):
            self._rows.append(event)
        if self._on_event:
            self._on_event(event)


def _comparison(rows: list[Measured]) -> Comparison:
    """A row that came again replaces the earlier one."""
    latest = {(each.role, each.step): each for each in rows}
    steps = [
        StepMeasurement(**each.row.model_dump(), method=each.method or "")
        for each in latest.values()
        if each.role == "step"
    ]
    ends = {each.role: each.row for each in latest.values() if each.role != "step"}
    return compare(ends.get("original"), steps, ends.get("final"))


def _result(finished: Finished, comparison: Comparison) -> Result:
    return Result(
        comparison=comparison,
        layers=finished.layers,
        artifacts=finished.artifacts,
        verdict=finished.verdict,
        notes=finished.notes,
        device=finished.device,
        versions=finished.versions,
        engine_s=finished.engine_s,
    )
