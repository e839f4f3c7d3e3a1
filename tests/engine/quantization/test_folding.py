"""Scales that fold away: whatever they are, a graph computes the same. Powers of two make that exact in float32."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.engine.quantization.sketch import SIDE, STEPS, Sketch, relu, residual, run
from worker.engine.graph import Graph
from worker.engine.quantization.folding.channels import Channels, find_channels, fold
from worker.engine.session import open_session, run_session

Builder = Callable[..., onnx.ModelProto]


def fold_at_random(graph: Graph) -> Channels:
    """Fold powers of two into `graph`, which has to compute the same; gives the channels."""
    before = run(graph)
    channels = find_channels(graph)
    scales = 2.0 ** np.random.default_rng(2).integers(-3, 4, channels.count)
    scales[0] = 1
    fold(graph, channels, scales)
    for expected, got in zip(before, run(graph), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return channels


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=8), st.integers(0, 100))
def test_random_graphs_compute_the_same(steps: list[str], seed: int) -> None:
    sketch = Sketch(seed)
    tensor = sketch.conv(sketch.conv("x", 4), 4)
    for step in steps:
        tensor = STEPS[step](sketch, tensor)
        if sketch.tensors[tensor] > 40:
            break
    assert fold_at_random(sketch.finish(tensor)).count > 1


@pytest.mark.parametrize("step", sorted(set(STEPS) - {"sigmoid", "gate"}))
def test_each_step_lets_scales_pass_or_begins_new_ones(step: str) -> None:
    sketch = Sketch(0)
    tensor = STEPS[step](sketch, sketch.conv("x", 4))
    channels = fold_at_random(sketch.finish(tensor))
    *_, last = channels.readings
    assert last.labels.all()
    assert len(last.labels) == sketch.tensors[tensor]


def test_a_residual_stream_has_one_scale_for_each_channel() -> None:
    sketch = Sketch(0)
    tensor = residual(sketch, residual(sketch, sketch.conv("x", 4)))
    channels = fold_at_random(sketch.finish(tensor))
    assert channels.count == 1 + 4 + 5 + 5
    stream = [each.labels.tolist() for each in channels.readings if each.labels.size == 4]
    assert len(stream) == 3
    assert all(labels == stream[0] for labels in stream)


@pytest.mark.parametrize(
    "obstacle", ["sigmoid", "output", "shared weight", "scalar", "clip", "not finite", "reduction"]
)
def test_what_does_not_scale_is_fixed(obstacle: str) -> None:
    sketch = Sketch(0)
    tensor = sketch.conv("x", 4)
    match obstacle:
        case "sigmoid":
            tensor = STEPS["sigmoid"](sketch, tensor)
        case "scalar":
            sketch.weights["one"] = np.ones((), np.float32)
            tensor = sketch.node("Add", [tensor, "one"], 4)
        case "clip":
            sketch.weights |= {"low": np.zeros((), np.float32), "high": np.full((), 6, np.float32)}
            tensor = sketch.node("Clip", [tensor, "low", "high"], 4)
        case "reduction":
            mean = sketch.node("ReduceMean", [tensor, sketch.constant(1)], 1)
            tensor = sketch.node("Sub", [tensor, mean], 4)
        case "shared weight":
            sketch.weights["w0"] = sketch.weights["w0"][:, :, 1:2, 1:2]
            sketch.nodes[0].attribute.pop()
            tensor = sketch.node("Conv", [tensor, "w0"], 4)
        case "not finite":
            sketch.weights["w1"][0] = np.inf
    graph = sketch.finish(tensor) if obstacle != "output" else sketch.graph(sketch.node("Relu", [tensor], 4))
    channels = find_channels(graph)
    assert channels.count == 1
    assert not channels.scaled
    assert not channels.readings


def test_a_clip_at_zero_is_a_relu() -> None:
    sketch = Sketch(0)
    sketch.weights["low"] = np.zeros((), np.float32)
    tensor = sketch.node("Clip", [sketch.conv("x", 4), "low"], 4)
    assert fold_at_random(sketch.finish(tensor)).count == 5


def test_a_flattened_image_keeps_its_channels() -> None:
    sketch = Sketch(0)
    flat = sketch.node("Flatten", [sketch.conv("x", 4)], 4 * SIDE**2)
    graph = sketch.graph(sketch.node("Gemm", [flat, sketch.weight(4 * SIDE**2, 3)], 3))
    channels = fold_at_random(graph)
    assert channels.count == 5
    assert channels.readings[0].labels.tolist() == np.repeat([1, 2, 3, 4], SIDE**2).tolist()


def test_weights_in_bodies_take_part(make_if_model: Builder) -> None:
    graph = Graph.from_proto(make_if_model())
    channels = find_channels(graph)
    scales = 2.0 ** np.arange(channels.count)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32), "wide": np.array(True)}
    before = run_session(open_session(graph.proto().SerializeToString()), feed)[0]
    fold(graph, channels, scales)
    assert channels.count == 17
    np.testing.assert_allclose(run_session(open_session(graph.proto().SerializeToString()), feed)[0], before, rtol=1e-5)


def test_what_a_body_reads_is_fixed_where_it_does_not_scale() -> None:
    sketch = Sketch(0)
    tensor = relu(sketch, sketch.conv("x", 4))
    body = helper.make_graph(
        [helper.make_node("Sigmoid", [tensor], ["inner"], "inside")],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    sketch.weights["always"] = np.array(True)
    other = sketch.node("If", ["always"], 4, then_branch=body, else_branch=_renamed(body))
    assert not find_channels(sketch.finish(sketch.node("Add", [sketch.conv(tensor, 4), other], 4))).scaled


def _renamed(body: onnx.GraphProto) -> onnx.GraphProto:
    other = onnx.GraphProto.FromString(body.SerializeToString())
    other.node[0].output[0] = other.output[0].name = "other"
    return other
