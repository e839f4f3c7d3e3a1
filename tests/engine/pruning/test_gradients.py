"""Taylor scores against expectations worked out by hand, and what they do not depend on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.contracts.failure import SlimlineError
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.graph.channels import Member, find_groups
from worker.engine.pruning.gradients import unit_taylor_scores
from worker.engine.quantization.calibration import Pass
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session

MakeGraph = Callable[..., Graph]
MakeSamples = Callable[..., Samples]
Draw = Callable[..., np.ndarray]
HIDDEN = 5
TWO_LAYERS = """g (float[n, 4] x) => (float[n, 3] y) {
    a = Gemm <transB=1> (x, w1, b1)  h = Relu (a)  y = Gemm <transB=1> (h, w2)
}"""
EACH = np.arange(HIDDEN)
READERS = Member("w2", 1, EACH)
WRITERS = [Member("w1", 0, EACH), Member("b1", 0, EACH)]


def two_layers(make_graph: MakeGraph, draw: Draw) -> Graph:
    strengths = np.linspace(0.3, 2, HIDDEN, dtype=np.float32)
    return make_graph(TWO_LAYERS, w1=draw(HIDDEN, 4) * strengths[:, None], b1=draw(HIDDEN), w2=draw(3, HIDDEN))


def exact(graph: Graph, x: np.ndarray) -> np.ndarray:
    """E[(h ||w2||)^2] / E[||y||^2]: by how much outputs move, relative to their energy, when a hidden unit goes."""
    w1, b1, w2 = (graph.array(name).astype(np.float64) for name in ("w1", "b1", "w2"))
    hidden = np.maximum(x @ w1.T + b1, 0)
    energy = np.square(hidden @ w2.T).sum(1).mean()
    scores: np.ndarray = np.square(hidden).mean(0) * np.square(w2).sum(0) / energy
    return scores


def test_scores_are_the_expected_movement_of_the_outputs(
    make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw
) -> None:
    graph, x = two_layers(make_graph, draw), draw(8, 4)
    samples = make_samples(graph, *[{"x": x}] * 2000)
    found = unit_taylor_scores(graph, [READERS], HIDDEN, Pass(samples, 16_000))
    np.testing.assert_allclose(found, exact(graph, x), rtol=0.12)


def test_slices_of_a_unit_are_added_before_they_are_squared(
    make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw
) -> None:
    """Of a unit under ReLU, the sums over what writes it and over what reads it are equal: both give four times one."""
    graph = two_layers(make_graph, draw)
    run = Pass(make_samples(graph, *({"x": draw(8, 4)} for _ in range(4))), 32)
    readers, writers = (unit_taylor_scores(graph, each, HIDDEN, run) for each in ([READERS], WRITERS))
    both = unit_taylor_scores(graph, [READERS, *WRITERS], HIDDEN, run)
    np.testing.assert_allclose(writers, readers, rtol=1e-4)
    np.testing.assert_allclose(both, 4 * readers, rtol=1e-4)


def test_indices_share_units_or_have_none(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    graph = two_layers(make_graph, draw)
    run = Pass(make_samples(graph, {"x": draw(1, 4)}), 1)
    alone = unit_taylor_scores(graph, [READERS], HIDDEN, run)
    paired = unit_taylor_scores(graph, [Member("w2", 1, np.array([0, 0, -1, 1, -1]))], 2, run)
    assert paired[1] == pytest.approx(alone[3])
    roots = np.sqrt(alone[:2])
    assert min(abs(np.sqrt(paired[0]) - each) for each in (roots.sum(), abs(roots[0] - roots[1]))) < 1e-6


def test_a_dead_unit_scores_nothing(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    graph = two_layers(make_graph, draw)
    bias = graph.array("b1").copy()
    bias[2] = -100
    graph.set_array("b1", bias)
    found = unit_taylor_scores(graph, [READERS, *WRITERS], HIDDEN, Pass(make_samples(graph, {"x": draw(64, 4)}), 64))
    assert found[2] == 0
    assert (np.delete(found, 2) > 0).all()


def test_the_seed_decides(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    graph = two_layers(make_graph, draw)
    run = Pass(make_samples(graph, *({"x": draw(8, 4)} for _ in range(3))), 24)
    one, same, other = (unit_taylor_scores(graph, [READERS], HIDDEN, run, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_size_of_outputs_does_not_count(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    graph = two_layers(make_graph, draw)
    large = graph.clone()
    large.set_array("w2", graph.array("w2") * 1000)
    run = Pass(make_samples(graph, {"x": draw(8, 4)}), 8)
    np.testing.assert_allclose(
        unit_taylor_scores(large, [READERS], HIDDEN, run), unit_taylor_scores(graph, [READERS], HIDDEN, run), rtol=1e-5
    )


def test_what_fills_up_a_fixed_batch_does_not_count(make_graph: MakeGraph, tmp_path: Path, draw: Draw) -> None:
    """One sample where the graph wants four: the three that repeat it would give other signs to the sum."""
    graph = two_layers(make_graph, draw)
    fixed = make_graph(TWO_LAYERS.replace("[n,", "[4,"), **{name: graph.array(name) for name in ("w1", "b1", "w2")})
    np.savez(tmp_path / "one.npz", x=draw(1, 4))
    with open_dataset(tmp_path / "one.npz") as data:
        scores = [
            unit_taylor_scores(each, [READERS], HIDDEN, Pass(Samples(each.inputs, data), 1)) for each in (graph, fixed)
        ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5)


def test_a_tied_weight_counts_wherever_it_is_read(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    """y = W W x with one unit of all of W: w dy/dw summed over W is 2 y, and so the score is 4."""
    graph = make_graph("g (float[n, 3] x) => (float[n, 3] y) { a = MatMul (x, w)  y = MatMul (a, w) }", w=draw(3, 3))
    run = Pass(make_samples(graph, *[{"x": draw(8, 3)}] * 500), 4000)
    whole = Member("w", 0, np.zeros(3, np.int64))
    assert unit_taylor_scores(graph, [whole], 1, run)[0] == pytest.approx(4, rel=0.2)


def test_every_float_output_counts_alike(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    text = "g (float[n, 4] x) => (float[n, 2] y, float[n, 9] z, int64[n] top) {"
    text += " h = Relu (x)  y = MatMul (h, wy)  z = MatMul (x, wz)  top = ArgMax <axis=1, keepdims=0> (z) }"
    graph = make_graph(text, wy=draw(4, 2) * 1000, wz=draw(4, 9))
    run = Pass(make_samples(graph, *[{"x": draw(8, 4)}] * 500), 4000)
    members = [Member("wy", 0, np.zeros(4, np.int64)), Member("wz", 0, np.ones(4, np.int64))]
    np.testing.assert_allclose(unit_taylor_scores(graph, members, 2, run), [1, 1], rtol=0.2)


@pytest.mark.parametrize(("name", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_types(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw, name: str, dtype: type) -> None:
    graph = two_layers(make_graph, draw)
    weights = {each: graph.array(each).astype(dtype) for each in ("w1", "b1", "w2")}
    other, x = make_graph(TWO_LAYERS.replace("float", name), **weights), draw(8, 4)
    expected = unit_taylor_scores(graph, [READERS], HIDDEN, Pass(make_samples(graph, {"x": x}), 8))
    found = unit_taylor_scores(other, [READERS], HIDDEN, Pass(make_samples(other, {"x": x.astype(dtype)}), 8))
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_weights_in_a_body(
    make_if_model: Callable[..., onnx.ModelProto], make_samples: MakeSamples, draw: Draw
) -> None:
    graph = Graph.from_proto(make_if_model())
    members = [Member("wide2.weight", 1, np.arange(16)), Member("thin.weight", 1, np.arange(16, 24))]
    feeds = ({"x": draw(8, 8), "wide": np.array(True)} for _ in range(3))
    found = unit_taylor_scores(graph, members, 24, Pass(make_samples(graph, *feeds), 24))
    assert (found[:16] > 0).all()
    assert not found[16:].any()


@pytest.mark.parametrize("build", ["make_cnn", "make_mlp", "make_lstm", "make_attention"])
def test_every_unit_of_small_models_has_a_score(request: pytest.FixtureRequest, build: str) -> None:
    model = request.getfixturevalue(build)()
    groups = find_groups(Graph.from_proto(model))
    samples = make_up(groups.graph.inputs, open_session(model.SerializeToString()), seed=0)
    found = unit_taylor_scores(groups.graph, groups.members, groups.count, Pass(samples, 32))
    assert np.isfinite(found).all()
    assert np.mean(found > 0) > 0.9


def test_the_graph_and_its_inputs_stay(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    graph, shares = two_layers(make_graph, draw), list[float]()
    before = graph.proto().SerializeToString(deterministic=True)
    samples = make_samples(graph, *({"x": draw(8, 4)} for _ in range(4)))
    unit_taylor_scores(graph, [READERS], HIDDEN, Pass(samples, 32, progress=shares.append))
    assert graph.proto().SerializeToString(deterministic=True) == before
    assert shares == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("g (float[n, 4] x) => (int64[n] y) { a = MatMul (x, w)  y = ArgMax <axis=1, keepdims=0> (a) }", "w"),
        ("g (float[n, 4] x) => (float[n, 4] y) { a = MatMul (x, w)  s = Shape (a)  y = Reshape (x, s) }", "w"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul (x, w) }", "another"),
    ],
)
def test_channels_that_no_gradient_reaches_are_refused(
    make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw, text: str, constant: str
) -> None:
    graph = make_graph(text, w=draw(4, 4))
    run = Pass(make_samples(graph, {"x": draw(2, 4)}), 2)
    with pytest.raises(SlimlineError) as caught:
        unit_taylor_scores(graph, [Member(constant, 0, np.arange(4))], 4, run)
    assert caught.value.failure.code == "NOTHING_TO_SCORE"
