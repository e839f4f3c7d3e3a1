"""Quantized graphs as the methods make them, and what they compute in torch and in ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from app.contracts.recipe.notation import parse_recipe
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.methods.method import Method, Record, StepContext
from worker.engine.methods.quantize_dynamic import DynamicQuantization
from worker.engine.methods.quantize_float16 import HalfPrecision
from worker.engine.methods.quantize_static import StaticQuantization
from worker.engine.methods.quantize_weights import WeightOnlyQuantization
from worker.engine.samples import Samples, make_up
from worker.engine.session import Array, open_session, run_session
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.quantized import QuantizedRewriting

Feed = dict[str, Array]
METHODS = (DynamicQuantization, HalfPrecision, StaticQuantization, WeightOnlyQuantization)


class Run:
    """A graph's first output on one feed, by torch or by ONNX Runtime."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def tensors(self) -> list[torch.Tensor]:
        """The feed as a TorchGraph takes it."""
        return [torch.from_numpy(np.array(each)) for each in self.feed.values()]

    def torch(self, graph: Graph | TorchGraph) -> Array:
        module = graph if isinstance(graph, TorchGraph) else TorchGraph(graph)
        with torch.no_grad():
            output: Array = module(*self.tensors())[0].numpy()
        return output

    def ort(self, graph: Graph, *, optimize: bool = True) -> Array:
        session = open_session(graph.proto().SerializeToString(), optimize=optimize)
        return run_session(session, self.feed)[0]


Quantize = Callable[..., tuple[Graph, Run]]


def apply_step(graph: Graph, recipe: str, data: Path, samples: Samples | None = None) -> Graph:
    """The result of the one step of `recipe` in string notation, calibrated on `data`."""
    graph.infer_shapes()
    (step,) = parse_recipe(recipe)
    method: Method[Any] = next(each for each in METHODS if isinstance(step, each.step_type))()
    with open_dataset(data) as dataset:
        context = StepContext(
            record=Record(0, step.method),
            calibration=dataset,
            samples=samples or Samples(graph.inputs, dataset),
            seed=0,
            device="cpu",
            progress=lambda *_: None,
        )
        return method.apply(graph, step, context)


@pytest.fixture(scope="session")
def quantize_on() -> Callable[..., Graph]:
    """`quantize_on(graph, recipe, data)`: a step with calibration data from a file."""
    return apply_step


@pytest.fixture
def quantize(tmp_path: Path) -> Quantize:
    """Applies the step of a recipe in string notation; `graph` may be a model or a graph."""

    def apply(model: onnx.ModelProto | Graph, recipe: str) -> tuple[Graph, Run]:
        graph = model if isinstance(model, Graph) else Graph.from_proto(model)
        graph.infer_shapes()
        made_up = make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)
        feeds = [batch.feed for batch in made_up.batches()]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0] if feeds[0][name].ndim}
        constants = {name: array for name, array in feeds[0].items() if not array.ndim}
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, allow_pickle=False, **joined, **constants)
        quantized = apply_step(graph, recipe, path, made_up)
        return quantized, Run({name: feeds[0][name] for name in (spec.name for spec in graph.inputs)})

    return apply


@pytest.fixture(scope="session")
def attached() -> Callable[[Graph], tuple[QuantizedRewriting, TorchGraph]]:
    """The rewriting of a graph, and a module that is ready to be trained."""

    def attach(graph: Graph) -> tuple[QuantizedRewriting, TorchGraph]:
        rewriting = QuantizedRewriting(graph)
        module = TorchGraph(rewriting.graph)
        rewriting.attach(module)
        return rewriting, module

    return attach
