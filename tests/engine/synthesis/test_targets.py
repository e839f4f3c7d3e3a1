"""What is found in a graph to aim at."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from worker.engine.graph import Graph
from worker.engine.graph.passes.fold_batch_norm import fold_batch_norm
from worker.engine.synthesis.targets import find_targets

Builder = Callable[..., onnx.ModelProto]
Parse = Callable[..., Graph]


def test_inputs_of_batch_normalization_come_with_what_it_stores(make_normed: Builder) -> None:
    graph = Graph.from_proto(make_normed())
    targets = find_targets(graph)
    assert [(each.tensor, each.axis) for each in targets] == [("c1", 1), ("c2", 1)]
    for number, target in enumerate(targets, 1):
        assert target.stored is not None
        mean, variance = target.stored
        assert np.array_equal(mean, graph.array(f"norm{number}.mean"))
        assert variance == pytest.approx(graph.array(f"norm{number}.variance") + 1e-5)


def test_layers_without_are_to_be_centred_and_outputs_are_left_alone(make_normed: Builder, make_mlp: Builder) -> None:
    folded = Graph.from_proto(make_normed())
    fold_batch_norm(folded)
    folded.infer_shapes()
    assert [(each.tensor, each.axis, each.stored) for each in find_targets(folded)] == [
        ("n1", 1, None),
        ("n2", 1, None),
    ]
    mlp = Graph.from_proto(make_mlp())
    mlp.infer_shapes()
    assert [(each.tensor, each.axis) for each in find_targets(mlp)] == [("a1", -1)]  # with its bias; y is the output


def test_bodies_count_and_a_name_used_twice_does_not(parse_graph: Parse) -> None:
    text = """g (float[N, 3] x, bool c) => (float[N, 3] y) { y = If (c) <
        then_branch = a () => (float[N, 3] ta) {
            same = MatMul (x, w)  one = BatchNormalization (x, ones, zeros, zeros, ones)
            t = BatchNormalization (one, ones, zeros, mean, ones) r = Add (same, t) ta = Relu (r) },
        else_branch = b () => (float[N, 3] tb) { same = MatMul (x, w)  tb = Relu (same) } > }"""
    weights = {"ones": np.ones(3), "zeros": np.zeros(3), "mean": np.full(3, 5.0), "w": np.eye(3)}
    graph = parse_graph(text, **{name: array.astype(np.float32) for name, array in weights.items()})
    found = {each.tensor: each.stored for each in find_targets(graph)}
    assert list(found) == ["x", "one"]
    assert found["one"] is not None
    assert np.array_equal(found["one"][0], np.full(3, 5.0))


@pytest.mark.parametrize("variance", [np.nan, -1.0, np.inf])
def test_broken_statistics_are_no_target(make_normed: Builder, variance: float) -> None:
    graph = Graph.from_proto(make_normed())
    graph.set_array("norm1.variance", np.full(6, variance, np.float32))
    graph.infer_shapes()
    assert [each.stored is not None for each in find_targets(graph)] == [True, False]
