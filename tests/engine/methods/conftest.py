"""Applies one method to a model: what the tests of single methods share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.contracts.recipe.notation import parse_recipe
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.methods import find_method
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import Samples, make_up
from worker.engine.session import Array, open_session, run_session


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
