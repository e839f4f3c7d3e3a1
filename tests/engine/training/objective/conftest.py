"""Builders for objectives: graphs from ONNX's text form, batches, and an objective put together from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper, parser

from app.contracts.failure import SlimlineError
from app.contracts.training import Distillation, TrainingOptions
from worker.engine import Graph, TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.objective import Goal, Objective, build_objective

MLP = """g (float[n, 6] x) => (float[n, 4] y) {
    h = MatMul (x, w1)  r = Relu (h)  y = MatMul (r, w2)
}"""


def _graph(text: str = MLP, seed: int = 0, **shapes: Any) -> Graph:
    """The graph of `text`; shapes become random weights from `seed`, arrays stay as they are."""
    rng = np.random.default_rng(seed)
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    shapes = shapes or {"w1": (6, 8), "w2": (8, 4)}
    for name, each in shapes.items():
        array = each if isinstance(each, np.ndarray) else rng.standard_normal(each).astype(np.float32) * 0.5
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return Graph.from_proto(model)


def _batch(
    *inputs: torch.Tensor, labels: torch.Tensor | None = None, start: int = 0, count: int | None = None, **more: Any
) -> TrainingBatch:
    count = len(inputs[0]) if count is None else count
    return TrainingBatch(list(inputs), labels, torch.arange(start, start + count), **more)


def _objective(
    student: Graph | TorchGraph,
    sample: TrainingBatch,
    teacher: Graph | None = None,
    *,
    distill: dict[str, Any] | None = None,
    task: Any = None,
    samples: int = 100,
    **options: Any,
) -> Objective:
    """An objective on the CPU. `distill` and `options` are as in a recipe; a teacher alone distils by default."""
    asked = Distillation(**(distill or {})) if distill is not None or teacher is not None else None
    module = student if isinstance(student, TorchGraph) else TorchGraph(student)
    goal = Goal(
        task=task,
        options=TrainingOptions(distill=asked, **options),
        teacher=teacher,
        has_labels=sample.labels is not None,
        samples=samples,
        device="cpu",
    )
    return build_objective(module, module.graph, goal, sample)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def _refusal(code: str) -> Iterator[SimpleNamespace]:
    """What is raised within must be a user's failure of that code, which it gives."""
    found = SimpleNamespace(failure=None)
    with pytest.raises(SlimlineError) as caught:
        yield found
    found.failure = caught.value.failure
    assert (found.failure.code, found.failure.kind) == (code, "user"), found.failure.message


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The builders above."""
    return SimpleNamespace(graph=_graph, batch=_batch, objective=_objective, random=_random, refusal=_refusal)
