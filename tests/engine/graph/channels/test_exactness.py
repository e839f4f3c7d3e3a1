"""On whole models: what is left computes what the masked model does, at sizes that the analysis has not seen."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.engine.graph.channels.comparing import ROUNDING, choose, count, differs, make_feeds
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.ingest import ingest_model

Builder = Callable[..., onnx.ModelProto]
FAR = 1e-3
"""Of an output's largest number: far more than rounding."""
RATES = {"sr": np.array(16000)}
"""Inputs of which not every number will do."""

WITHOUT_EFFECT = ("key.bias",)
"""Softmax takes off again what it adds to all scores of a query."""


@pytest.fixture(params=["models", "models/exports"])
def shared_graphs(request: pytest.FixtureRequest, shared: Path) -> Iterator[tuple[str, Graph]]:
    return ((path.stem, ingest_model(path)[0]) for path in sorted((shared / request.param).glob("*.onnx")))


@pytest.mark.slow
def test_shared_models(shared_graphs: Iterator[tuple[str, Graph]]) -> None:
    for name, graph in shared_graphs:
        expect_exact(name, graph)


@pytest.mark.parametrize("kind", ["cnn", "mlp", "lstm", "attention", "if_model"])
def test_tiny_models(kind: str, request: pytest.FixtureRequest) -> None:
    build: Builder = request.getfixturevalue(f"make_{kind}")
    graph = Graph.from_proto(build())
    graph.infer_shapes()
    expect_exact(kind, graph)


def expect_exact(name: str, graph: Graph) -> None:
    groups, feeds = find_groups(graph), make_feeds(graph, RATES)
    assert groups.groups, name
    gone = choose(groups)
    pruned = groups.remove(gone)
    pruned.check()
    assert pruned.inputs == graph.inputs, name
    assert [(spec.name, spec.dtype) for spec in pruned.outputs] == [(spec.name, spec.dtype) for spec in graph.outputs]
    assert count(pruned) < count(graph), name
    assert differs(groups.masked(gone), pruned, feeds) < ROUNDING, name


def test_a_slice_taken_one_place_further_shows(make_cnn: Builder, make_attention: Builder, make_lstm: Builder) -> None:
    """In every constant that loses something, one after the other."""
    for proto in (make_cnn(), make_attention(), make_lstm()):
        graph = Graph.from_proto(proto)
        graph.infer_shapes()
        groups, feeds = find_groups(graph), make_feeds(graph)
        gone = choose(groups)
        masked = groups.masked(gone)
        for member in groups.members:
            if np.isin(member.units, gone).any() and member.constant not in WITHOUT_EFFECT:
                wrong = shifted(groups, gone, member.constant, member.axis)
                assert differs(masked, wrong, feeds) > FAR, (member.constant, member.axis)


def shifted(groups: Groups, gone: list[int], constant: str, axis: int) -> Graph:
    """The pruned graph, but of one constant's axis the indices after those that go were removed."""
    pruned, array = groups.remove(gone), groups.graph.array(constant)
    for member in groups.members:
        if member.constant == constant:
            keeps = ~np.isin(member.units, gone)
            array = np.compress(np.roll(keeps, 1) if member.axis == axis else keeps, array, member.axis)
    pruned.set_array(constant, array)
    return pruned
