"""Applies one method to a model: what the tests of single methods share."""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.contracts.events import EngineEvent
from app.contracts.recipe.notation import parse_recipe
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.methods import find_method
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import Samples, make_up
from worker.engine.session import Array, open_session, run_session
from worker.engine.training.checkpoints import Checkpoints, Forgotten


@dataclass
class Applied:
    """A graph before and after a step, with what the step told; `outputs` runs either side on the samples."""

    before: Graph
    after: Graph
    record: Record
    samples: Samples

    def outputs(self) -> tuple[list[Array], list[Array]]:
        """First outputs of all samples, before and after."""
        sessions = [open_session(graph.proto().SerializeToString()) for graph in (self.before, self.after)]
        pairs = [[run_session(session, batch.feed)[0] for session in sessions] for batch in self.samples.batches()]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def reasons(self) -> dict[str, str | None]:
        """Why each skipped layer was skipped."""
        return {each.layer: each.reason for each in self.record.layers if not each.done}


Apply = Callable[[onnx.ModelProto, str], Applied]


@pytest.fixture
def apply_step(tmp_path: Path) -> Iterator[Apply]:
    """Applies the one step of a recipe in string notation to a model."""
    with ExitStack() as stack:

        def apply(model: onnx.ModelProto, recipe: str) -> Applied:
            graph = Graph.from_proto(model)
            graph.infer_shapes()
            made_up = make_up(graph.inputs, open_session(model.SerializeToString()), seed=0)
            feeds = [batch.feed for batch in made_up.batches()]
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0] if feeds[0][name].ndim}
            scalars = {name: array for name, array in feeds[0].items() if not array.ndim}
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
            np.savez(path, allow_pickle=False, **joined, **scalars)
            dataset = stack.enter_context(open_dataset(path))
            (step,) = parse_recipe(recipe)
            record = Record(0, step.method)
            context = StepContext(
                record=record,
                calibration=dataset,
                samples=made_up,
                seed=0,
                device="cpu",
                progress=lambda _share, _message: None,
            )
            return Applied(graph, find_method(step.method).apply(graph, step, context), record, made_up)

        yield apply


Learn = Callable[..., Applied]


@pytest.fixture
def learn_step(tmp_path: Path) -> Iterator[Learn]:
    """Applies the one step of a recipe that trains to a tiny CNN of 4 classes, on 384 images of them.

    Images of 3 x 8 x 8 are tiled with a pattern for each class, in noise. `checkpoints` and a list of `events` may be
    given.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 384)
    images = np.tile(rng.standard_normal((4, 3, 2, 2)), 4)[:, :, [0, 1] * 4][labels] + rng.standard_normal(
        (384, 3, 8, 8)
    )
    np.savez(tmp_path / "train.npz", allow_pickle=False, x=images.astype(np.float32), y=labels)
    with open_dataset(tmp_path / "train.npz") as dataset:

        def apply(
            model: onnx.ModelProto,
            recipe: str,
            checkpoints: Checkpoints | None = None,
            events: list[EngineEvent] | None = None,
        ) -> Applied:
            graph = Graph.from_proto(model)
            graph.infer_shapes()
            (step,) = parse_recipe(recipe)
            record, samples = Record(0, step.method), Samples(graph.inputs, dataset)
            context = StepContext(
                record=record,
                calibration=dataset,
                samples=samples,
                seed=0,
                device="cpu",
                progress=lambda _share, _message, _remaining_s=None: None,
                training=dataset,
                checkpoints=checkpoints or Forgotten(),
                say=lambda event: None if events is None else events.append(event),
            )
            return Applied(graph, find_method(step.method).apply(graph, step, context), record, samples)

        yield apply


class InterruptedJobError(Exception):
    """A process that was killed."""


class Interrupting:
    """Keeps states, and raises `InterruptedJobError` after so many were saved."""

    error = InterruptedJobError

    def __init__(self, after: int) -> None:
        self._after = after
        self.state: dict[str, object] | None = None

    def load(self) -> dict[str, object] | None:
        return self.state

    def save(self, state: dict[str, object]) -> None:
        self.state = copy.deepcopy(state)
        self._after -= 1
        if self._after == 0:
            raise InterruptedJobError


@pytest.fixture
def killed_after() -> Callable[[int], Interrupting]:
    """Checkpoints of a job that is killed after so many of them; asked again, they give what was left."""
    return Interrupting
