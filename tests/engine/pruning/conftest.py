"""Builds graphs from ONNX's own text form, and samples held in memory: what the tests of pruning share."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

from worker.engine.graph import Graph
from worker.engine.samples import Samples, Synthetic

MakeGraph = Callable[..., Graph]
MakeSamples = Callable[..., Samples]
Draw = Callable[..., np.ndarray]


def _graph(text: str, **weights: Any) -> Graph:
    """The graph of `text`, with `weights` as initializers."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items())
    graph = Graph.from_proto(model)
    graph.infer_shapes()
    return graph


def _samples(graph: Graph, *feeds: Mapping[str, np.ndarray]) -> Samples:
    """One batch for each of `feeds`, in that order."""
    rows = max(len(array) for array in feeds[0].values() if array.ndim)
    return Samples(graph.inputs, Synthetic(feeds, rows))


@pytest.fixture(scope="session")
def make_graph() -> MakeGraph:
    return _graph


@pytest.fixture(scope="session")
def make_samples() -> MakeSamples:
    return _samples


@pytest.fixture
def draw() -> Draw:
    """Normal numbers of a shape, float32; each test begins the same sequence."""
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)
