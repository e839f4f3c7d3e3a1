"""Runs a graph on samples with torch and watches what flows through it: memory does not grow with the samples."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

from worker.engine.graph import Graph
from worker.engine.samples import Samples
from worker.engine.session import Array, Device
from worker.engine.tensors import histogram
from worker.engine.tensors.extremes import Extremes, widen
from worker.engine.tensors.histogram import Histogram
from worker.engine.torch_graph import TorchGraph
from worker.engine.torch_graph.dtypes import held_as

Observer = Callable[[torch.Tensor], torch.Tensor | None]
"""Sees a tensor each time it is made; what it gives back, if anything, takes the tensor's place."""


@dataclass(frozen=True)
class Pass:
    """How a graph is run for watching: on at most `limit` of `samples`, telling `progress` the share done."""

    samples: Samples
    limit: int
    device: Device = "cpu"
    progress: Callable[[float], None] = lambda _: None


def watch(graph: Graph, observers: Iterable[tuple[str, Observer]], run: Pass) -> None:
    """Run `graph` and show each observer the tensor named before it, batch by batch; bodies' tensors count too.

    Raises SlimlineError for a graph that torch cannot run, or a name that no node or input gives.
    """
    module = TorchGraph(graph).to(run.device)
    for name, observer in observers:
        module.observe(name, observer)
    total, done = min(run.limit, len(run.samples)), 0
    with torch.inference_mode():
        for batch in run.samples.batches(limit=run.limit):
            module(*to_tensors(graph, batch.feed, run.device))
            done += batch.count
            run.progress(min(1.0, done / total))


def to_tensors(graph: Graph, feed: Mapping[str, Array], device: Device = "cpu") -> list[torch.Tensor]:
    """The inputs of `graph` in order, in the types it declares, which a step may have changed."""
    types = (ir.DataType[spec.dtype.upper()] for spec in graph.inputs)
    arrays = (feed[spec.name] for spec in graph.inputs)
    return [torch.tensor(array).to(device, held_as(dtype)) for array, dtype in zip(arrays, types, strict=True)]


def find_extremes(graph: Graph, run: Pass, names: Collection[str] | None = None) -> dict[str, Extremes]:
    """The extremes of float32 tensors by name: of `names`, or of all."""
    found: dict[str, Extremes] = {}

    def widened(name: str, values: torch.Tensor) -> None:
        found[name] = widen(found.get(name, Extremes()), values)

    _watch_each(graph, widened, run, names)
    return found


def find_histograms(graph: Graph, run: Pass, names: Collection[str] | None = None) -> dict[str, Histogram]:
    """The distribution of float32 tensors by name: of `names`, or of all."""
    found: dict[str, Histogram] = {}

    def counted(name: str, values: torch.Tensor) -> None:
        found[name] = histogram.add(found.get(name, Histogram.empty()), values)

    _watch_each(graph, counted, run, names)
    return found


def _watch_each(
    graph: Graph, take: Callable[[str, torch.Tensor], None], run: Pass, names: Collection[str] | None
) -> None:
    def observer(name: str) -> Observer:
        def observe(values: torch.Tensor) -> None:
            take(name, values)

        return observe

    chosen = float_tensors(graph) if names is None else names
    watch(graph, [(name, observer(name)) for name in chosen], run)


def float_tensors(graph: Graph) -> list[str]:
    """Names of the float32 tensors that flow: inputs and what nodes make, in bodies too; no weights."""
    values = [value for value in graph.model.graph.inputs if not value.is_initializer()]
    values += [value for node in graph.nodes() for value in node.outputs if value.uses() or value.is_graph_output()]
    return list(
        dict.fromkeys(
            value.name
            for value in values
            if value.name and value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType)
        )
    )
