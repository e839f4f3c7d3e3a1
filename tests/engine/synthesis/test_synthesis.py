"""Synthesised samples: nearer to what a graph stores than noise is, and accepted by graphs of any kind."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnx
import pytest

from worker.engine.graph import Graph
from worker.engine.graph.passes.fold_batch_norm import fold_batch_norm
from worker.engine.samples import Samples, make_up
from worker.engine.session import Array, open_session, run_session
from worker.engine.synthesis import SynthesisRun, synthesize

Builder = Callable[..., onnx.ModelProto]
Observe = Callable[[Graph, Samples, str], "Seen"]
Parse = Callable[..., Graph]


class Seen(Protocol):
    """Mean and variance of each channel of a tensor."""

    mean: Array
    variance: Array


def to_graph(model: onnx.ModelProto) -> Graph:
    graph = Graph.from_proto(model)
    graph.infer_shapes()
    return graph


def to_bytes(graph: Graph) -> bytes:
    content: bytes = graph.proto().SerializeToString()
    return content


def random(graph: Graph) -> Samples:
    return make_up(graph.inputs, open_session(to_bytes(graph)), seed=0)


def distance(graph: Graph, seen: Seen, norm: str) -> tuple[float, float]:
    """Of means, in stored deviations, and of the logarithms of deviations; each as its root mean square."""
    mean, variance = graph.array(f"{norm}.mean"), graph.array(f"{norm}.variance")
    ratio = 0.5 * np.log((seen.variance + 1e-12) / variance)
    means = np.sqrt(np.mean((seen.mean - mean) ** 2 / variance))
    return float(means), float(np.sqrt(np.mean(ratio**2)))


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_channels_come_near_what_is_stored(make_normed: Builder, observe: Observe, rank: int) -> None:
    graph = to_graph(make_normed(rank=rank))
    made = synthesize(graph, SynthesisRun())
    assert "2 BatchNormalization nodes" in (made.note or "")
    for norm, tensor in (("norm1", "c1"), ("norm2", "c2")):
        means, deviations = distance(graph, observe(graph, made, tensor), norm)
        by_noise = distance(graph, observe(graph, random(graph), tensor), norm)
        assert means < min(0.05, by_noise[0] / 5)
        assert deviations < min(0.05, by_noise[1] / 10)


def test_folded_graphs_are_scaled_to_what_their_biases_expect(make_normed: Builder, observe: Observe) -> None:
    """The statistics are gone; the distance is from those of the graph before it was folded."""
    normed = to_graph(make_normed())
    folded = normed.clone()
    fold_batch_norm(folded)
    folded.infer_shapes()
    made = synthesize(folded, SynthesisRun())
    assert "no BatchNormalization" in (made.note or "")
    off = {"made": 0.0, "noise": 0.0}
    for source, samples in (("made", made), ("noise", random(normed))):
        for norm, tensor in (("norm1", "c1"), ("norm2", "c2")):
            off[source] += sum(distance(normed, observe(normed, samples, tensor), norm))
    assert off["made"] < 0.7 * off["noise"]


def test_same_seed_same_bytes_and_another_seed_others(make_normed: Builder) -> None:
    graph = to_graph(make_normed())
    before = to_bytes(graph)
    one, same, other = (
        synthesize(graph, SynthesisRun(seed=seed, count=32)).first()["x"].tobytes() for seed in (0, 0, 1)
    )
    assert one == same != other
    assert to_bytes(graph) == before


def test_progress_rises_to_the_end(make_normed: Builder) -> None:
    told: list[float] = []
    synthesize(to_graph(make_normed()), SynthesisRun(count=64, progress=told.append))
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize("batch", [4, "batch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_fixed_batches_and_half_precision(make_normed: Builder, dtype: type, batch: int | str) -> None:
    graph = to_graph(make_normed(dtype=dtype, batch=batch))
    made = synthesize(graph, SynthesisRun(count=16))
    assert len(made) == (16 if batch == 4 else 32)
    session = open_session(to_bytes(graph))
    for each in made.batches():
        assert each.feed["x"].dtype == dtype
        assert np.isfinite(run_session(session, each.feed)[0]).all()


def test_whole_numbers_alone_are_drawn_and_the_note_says_so(make_attention: Builder) -> None:
    graph = to_graph(make_attention(vocabulary=20))
    made = synthesize(graph, SynthesisRun(count=32))
    assert "drawn at random" in (made.note or "")
    tokens = np.concatenate([batch.feed["tokens"] for batch in made.batches()])
    assert (tokens.min(), tokens.max()) == (0, 19)


def test_several_inputs_of_which_some_cannot_be_improved(parse_graph: Parse, observe: Observe) -> None:
    text = """g (float[N, 3] x, int64[N] token, float z) => (float[N, 3] y) {
        e = Gather (table, token)  a = Add (x, e)  b = Mul (a, z)  n = BatchNormalization (a, ones, zeros, mean, ones)
        y = Add (b, n) }"""
    arrays = {"table": np.ones((9, 3)), "ones": np.ones(3), "zeros": np.zeros(3), "mean": np.array([5.0, -3.0, 0.0])}
    graph = parse_graph(text, **{name: array.astype(np.float32) for name, array in arrays.items()})
    made = synthesize(graph, SynthesisRun())
    feed = made.first()
    assert (feed["x"].shape, feed["token"].shape, feed["z"].shape) == ((32, 3), (32,), ())
    assert int(feed["token"].max()) < 9
    assert observe(graph, made, "a").mean == pytest.approx([5, -3, 0], abs=0.3)


def test_statistics_in_the_body_of_an_if_count(parse_graph: Parse) -> None:
    body = "n = BatchNormalization (x, ones, zeros, mean, ones)"
    text = f"""g (float[N, 3] x) => (float[N, 3] y) {{ y = If (always) <
        then_branch = a () => (float[N, 3] t) {{ k = Identity (x) {body.replace("(x,", "(k,")} t = Relu (n) }},
        else_branch = b () => (float[N, 3] u) {{ u = Relu (x) }} > }}"""
    arrays = {"ones": np.ones(3), "zeros": np.zeros(3), "mean": np.full(3, 4.0)}
    floats = {name: array.astype(np.float32) for name, array in arrays.items()}
    made = synthesize(parse_graph(text, **floats, always=np.array(True)), SynthesisRun())
    inputs = np.concatenate([batch.feed["x"] for batch in made.batches()])
    assert inputs.mean(0) == pytest.approx([4, 4, 4], abs=0.3)


def test_an_input_that_no_gradient_reaches_stays_noise(parse_graph: Parse) -> None:
    text = """g (float[N, 3] x) => (float[N, 3] y) { i = Cast <to = 6> (x)  f = Cast <to = 1> (i)
        y = BatchNormalization (f, ones, zeros, ones, ones) }"""
    arrays = {"ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32)}
    made = synthesize(parse_graph(text, **arrays), SynthesisRun())
    assert "drawn at random" in (made.note or "")
    assert np.isfinite(made.first()["x"]).all()


def test_a_loss_that_is_not_finite_leaves_finite_inputs(make_normed: Builder) -> None:
    graph = to_graph(make_normed())
    graph.set_array("w2", np.full_like(graph.array("w2"), np.inf))
    made = synthesize(graph, SynthesisRun(count=32))
    assert all(np.isfinite(batch.feed["x"]).all() for batch in made.batches())


def test_a_graph_that_takes_one_sample_at_a_time(parse_graph: Parse) -> None:
    text = """g (float[N, 3] x) => (float[1, 3] y) {
        r = Reshape (x, one)  y = BatchNormalization (r, ones, zeros, mean, ones) }"""
    arrays = {"ones": np.ones(3), "zeros": np.zeros(3), "mean": np.full(3, 2.0)}
    floats = {name: array.astype(np.float32) for name, array in arrays.items()}
    made = synthesize(parse_graph(text, **floats, one=np.array([1, 3])), SynthesisRun(count=3))
    assert [batch.feed["x"].shape for batch in made.batches()] == [(1, 3)] * 3


@pytest.mark.parametrize("builder", ["make_cnn", "make_mlp", "make_lstm", "make_attention", "make_if_model"])
def test_every_tiny_model_takes_them(request: pytest.FixtureRequest, builder: str) -> None:
    model = request.getfixturevalue(builder)()
    session = open_session(model.SerializeToString())
    made = synthesize(to_graph(model), SynthesisRun(count=16))
    for batch in made.batches():
        assert all(np.isfinite(output).all() for output in run_session(session, batch.feed))
