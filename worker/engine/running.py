"""Runs a model on a dataset and tells what came out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from app.contracts.preprocess import Preprocess
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.samples import Samples, make_up
from worker.engine.session import Array, open_session, run_session


def run_model(
    model: Path, data: Path | None, preprocess: Preprocess | None, *, limit: int | None, seed: int
) -> dict[str, Array]:
    """Every output by name, all samples joined; on made-up inputs without `data`. Raises SlimlineError."""
    graph, session = Graph.load(model), open_session(model)
    if data is None:
        return _collect(graph, session, make_up(graph.inputs, session, seed), limit)
    with open_dataset(data, preprocess) as dataset:
        return _collect(graph, session, Samples(graph.inputs, dataset), limit)


def summarize(outputs: Mapping[str, Array]) -> dict[str, dict[str, object]]:
    """Shape, type and extremes of each output."""
    return {
        name: {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "min": float(array.min()),
            "mean": float(array.mean()),
            "max": float(array.max()),
        }
        for name, array in outputs.items()
        if array.size
    }


def _collect(graph: Graph, session: object, samples: Samples, limit: int | None) -> dict[str, Array]:
    batches = [
        [output[: batch.count] if output.ndim else output[None] for output in run_session(session, batch.feed)]
        for batch in samples.batches(limit=limit)
    ]
    names = [spec.name for spec in graph.outputs]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*batches, strict=True), strict=True)}
