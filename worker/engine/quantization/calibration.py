"""Runs a graph on samples and watches what flows through it, batch by batch: memory does not grow with the samples."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.samples import Samples
from worker.engine.session import Array, open_session, run_session
from worker.engine.tensors import histogram
from worker.engine.tensors.extremes import Extremes, widen
from worker.engine.tensors.histogram import Histogram

_BATCH_BYTES = 32 << 20
_LARGEST_BATCH = 64
Watch = Callable[[str, Array], None]


def find_extremes(graph: Graph, samples: Samples, limit: int, progress: Callable[[float], None]) -> dict[str, Extremes]:
    """The extremes of every float32 tensor of the main graph over at most `limit` samples, by name."""
    found: dict[str, Extremes] = {}

    def watch(name: str, values: Array) -> None:
        found[name] = widen(found.get(name, Extremes()), values)

    observe(graph, samples, limit, watch, progress)
    return found


def find_histograms(
    graph: Graph, samples: Samples, limit: int, progress: Callable[[float], None]
) -> dict[str, Histogram]:
    """The distribution of every float32 tensor of the main graph over at most `limit` samples, by name."""
    found: dict[str, Histogram] = {}

    def watch(name: str, values: Array) -> None:
        found[name] = histogram.add(found.get(name, Histogram.empty()), values)

    observe(graph, samples, limit, watch, progress)
    return found


def observe(graph: Graph, samples: Samples, limit: int, watch: Watch, progress: Callable[[float], None]) -> None:
    """Show `watch` every float32 tensor of the main graph, by name, for each batch of at most `limit` samples.

    Tensors of If, Loop and Scan bodies are not shown: they have no place among the outputs.
    """
    open_graph, names = _with_all_outputs(graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observed.onnx"
        open_graph.save(path)
        session = open_session(path)
        first = samples.first()
        values = run_session(session, first)
        size = min(_LARGEST_BATCH, max(1, _BATCH_BYTES // max(1, sum(value.nbytes for value in values))))
        total = min(limit, len(samples))
        done = 0
        for batch in samples.batches(batch_size=size, limit=limit):
            for name, output in {**batch.feed, **_named(names, run_session(session, batch.feed))}.items():
                if output.dtype == np.float32:
                    watch(name, output)
            done += batch.count
            progress(done / total)


def _named(names: list[str], outputs: list[Array]) -> Mapping[str, Array]:
    return dict(zip(names, outputs, strict=True))


def _with_all_outputs(graph: Graph) -> tuple[Graph, list[str]]:
    observed = graph.clone()
    main = observed.model.graph
    present = {id(value) for value in main.outputs}
    for node in main:
        for value in node.outputs:
            if (
                value.dtype == ir.DataType.FLOAT
                and isinstance(value.type, ir.TensorType)
                and value.name
                and id(value) not in present
                and value.uses()
            ):
                main.outputs.append(value)
    return observed, [value.name or "" for value in main.outputs]
