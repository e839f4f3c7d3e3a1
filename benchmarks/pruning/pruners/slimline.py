"""Prunes with Slimline's engine: the step alone, file to file, with the analysis timed on its own."""

import time
from collections import Counter
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from app.contracts.recipe.notation import parse_recipe
from benchmarks.pruning.pruners.order import Answer, Order, serve
from worker.engine.data import open_dataset
from worker.engine.export.onnx import export_onnx
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.ingest import ingest_model
from worker.engine.methods import registry
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_graph, run_session

_LOADED_LATE = ("onnx.reference", "onnxscript.optimizer", "onnxscript.version_converter")
"""What the engine imports when it first needs it."""
_SHARE = 0.5
"""Of each group's units that go where removal is compared with masking."""


def prune(order: Order, answer: Answer) -> None:
    """Options: `recipe`, one step in the string notation, or None to analyse only; `calibrate`, an .npz file."""
    started = time.perf_counter()
    graph, _ = ingest_model(order.subject)
    read = time.perf_counter()
    groups = find_groups(graph)
    answer.analysis_s = time.perf_counter() - read
    answer.groups = dict(Counter(group.kind for group in groups.groups))
    if recipe := order.options.get("recipe"):
        pruning = time.perf_counter()
        _apply_step(graph, recipe, order)
        answer.work_s = read - started + time.perf_counter() - pruning
        answer.deviation = _deviation(graph, groups)


def _apply_step(graph: Graph, recipe: str, order: Order) -> None:
    (step,) = steps = parse_recipe(recipe)
    samples = make_up(graph.inputs, open_graph(graph), seed=0)
    if not (calibrate := order.options.get("calibrate")):
        context = StepContext(Record(0, step.method), None, samples, 0, "cpu", _tell_nothing)
        export_onnx(registry()[step.method].apply(graph, step, context), steps, order.output)
        return
    with open_dataset(calibrate) as data:
        context = StepContext(Record(0, step.method), data, Samples(graph.inputs, data), 0, "cpu", _tell_nothing)
        export_onnx(registry()[step.method].apply(graph, step, context), steps, order.output)


def _tell_nothing(_share: float, _message: str) -> None:
    """No progress is shown: this process has no console."""


def _deviation(graph: Graph, groups: Groups) -> float:
    """Half of every group removed, against the same half masked."""
    units = [int(unit) for group in groups.groups for unit in group.units[: int(len(group.units) * _SHARE)]]
    feed = make_up(graph.inputs, open_graph(graph), seed=0).first()
    pairs = zip(*(run_session(open_graph(made(units)), feed) for made in (groups.remove, groups.masked)), strict=True)
    return max(_relative(removed, masked) for removed, masked in pairs)


def _relative(removed: NDArray[np.float32], masked: NDArray[np.float32]) -> float:
    return float(np.abs(removed - masked).max() / max(float(np.abs(masked).max()), 1e-30))


if __name__ == "__main__":
    registry()
    for module in _LOADED_LATE:
        import_module(module)
    serve(prune)
