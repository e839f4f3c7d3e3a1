"""Applies the steps of a recipe one after another, accepts each result only if it runs, and checkpoints it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from app.contracts.events import Checkpoint, EngineEvent, LayerRecord, Log
from app.contracts.failure import FaultKind, SlimlineError
from app.contracts.job_spec import Task
from app.contracts.recipe import Step
from worker.engine.data import Dataset
from worker.engine.device import count_devices
from worker.engine.graph import Graph
from worker.engine.methods import find_method
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import Samples
from worker.engine.session import Array, Device, open_session, run_session
from worker.engine.stages.agreement import find_disagreement
from worker.engine.stages.models import RecipeModels
from worker.engine.stages.partial import PartialCheckpoints
from worker.engine.stages.progress import ProgressMeter

_STORY_KEY = "slimline.story"
"""A checkpoint carries what was told of the steps before it, so that a retry loses nothing."""


class Story(BaseModel):
    """What the steps so far did to each layer, and their notes."""

    layers: list[LayerRecord] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    def add(self, record: Record) -> None:
        """Add what one step told."""
        self.layers += record.layers
        self.notes += [f"{record.method}: {note}" for note in record.notes]


@dataclass(frozen=True)
class StepRunner:
    """What all steps of a job share. `expected` are the original's outputs for the first of `samples`."""

    workspace: Path
    calibration: Dataset | None
    training: Dataset | None
    task: Task | None
    models: RecipeModels
    samples: Samples
    expected: Sequence[Array]
    seed: int
    device: Device
    progress: ProgressMeter
    emit: Callable[[EngineEvent], None]

    def run(self, graph: Graph, step: Step, index: int, partial: Path | None) -> tuple[Graph, Record, Path]:
        """Step `index` (from 0) applied and accepted: the graph, what was done, and the file it was accepted from.

        `partial` is what an earlier attempt left of it.

        Raises SlimlineError, placed in the step: the method's own refusal, or STEP_BROKE_GRAPH.
        """
        record = Record(index, step.method)
        checkpoints = PartialCheckpoints(self.workspace, index, partial, self.emit)
        context = StepContext(
            record=record,
            calibration=self.calibration,
            samples=self.samples,
            seed=self.seed,
            device=self.device,
            progress=lambda share, message, remaining_s=None: self.progress.tell(
                "compress", share, message, index, remaining_s
            ),
            training=self.training,
            task=self.task,
            models=self.models,
            checkpoints=checkpoints,
            say=self.emit,
            devices=count_devices(self.device),
        )
        self.progress.tell("compress", 0.0, step.method, index)
        try:
            result = find_method(step.method).apply(graph, step, context)
            path = self.workspace / f"step-{index}.onnx"
            self._accept(result, step, path)
        except SlimlineError as error:
            raise error.at_step(index) from error.__cause__
        checkpoints.close()
        self.models.steps[index] = path
        self.progress.tell("compress", 1.0, step.method, index)
        for note in record.notes:
            self.emit(Log(message=f"{step.method}: {note}"))
        return result, record, path

    def checkpoint(self, graph: Graph, story: Story, index: int) -> None:
        """Write `graph` with what was told so far and announce it."""
        path = self.workspace / f"checkpoint-{index}.onnx"
        graph.model.metadata_props[_STORY_KEY] = story.model_dump_json()
        graph.save(path)
        del graph.model.metadata_props[_STORY_KEY]
        self.emit(Checkpoint(step=index, path=path.name))

    def _accept(self, graph: Graph, step: Step, path: Path) -> None:
        try:
            graph.check()
            graph.save(path)
            # As it is written, not as ONNX Runtime fuses it: a failure names a node of this graph.
            feed = self.samples.first()
            outputs = run_session(open_session(path, device=self.device, optimize=False), feed)
            disagreement = find_disagreement(graph, feed, outputs)
        except SlimlineError as error:
            raise _broken(step, error.failure.message, error.failure.node) from error
        names = [spec.name for spec in graph.outputs]
        for name, output, expected in zip(names, outputs, self.expected, strict=True):
            if output.shape != expected.shape or not _is_comparable(output, expected):
                told = f"{output.dtype}{list(output.shape)} instead of {expected.dtype}{list(expected.shape)}"
                raise _broken(step, f"output {name!r} became {told}", name)
            if np.isfinite(expected.astype(np.float32)).all() and not np.isfinite(output.astype(np.float32)).all():
                raise _broken(step, f"output {name!r} holds NaN or infinity where the original does not", name)
        if disagreement is not None:
            name, told = disagreement
            raise _broken(step, f"ONNX Runtime and torch differ on output {name!r}: {told}", name)


def _is_comparable(output: Array, expected: Array) -> bool:
    """Whether the types are equal, or floats of whatever precision."""
    return output.dtype == expected.dtype or output.dtype.kind == expected.dtype.kind == "f"


def resume(path: Path) -> tuple[Graph, Story]:
    """The graph of a checkpoint and what was told of the steps that led to it."""
    graph = Graph.load(path)
    return graph, Story.model_validate_json(graph.model.metadata_props.pop(_STORY_KEY, "{}"))


def _broken(step: Step, reason: str, node: str | None) -> SlimlineError:
    return SlimlineError(
        "STEP_BROKE_GRAPH",
        f"{step.method} made a graph that does not hold: {reason}",
        kind=FaultKind.OURS,
        node=node,
        hint="Exclude the layer from the step, and report this with the model's architecture.",
    )
