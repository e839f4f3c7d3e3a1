"""What rescaled nodes give in ONNX Runtime is gain x + shift; nodes for which that could change others are left out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from worker.engine.graph import Graph
from worker.engine.pruning.rescaling import find_rescalable
from worker.engine.session import open_graph, run_session

MakeGraph = Callable[..., Graph]
Draw = Callable[..., np.ndarray]


def numbers(*shape: int) -> np.ndarray:
    """Unlike each other, the same for the same shape."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


IMAGE = "g (float[n, 4, 6, 6] x) => (float[n, c, h, w] y)"
ROWS = "g (float[n, 4] x) => (float[n, 6] y)"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": (IMAGE + "{ y = Conv (x, w, b) }", {"w": numbers(6, 4, 3, 3), "b": numbers(6)}),
    "conv without bias": (IMAGE + "{ y = Conv (x, w) }", {"w": numbers(6, 4, 3, 3)}),
    "grouped conv": (IMAGE + "{ y = Conv <group=2> (x, w) }", {"w": numbers(6, 2, 3, 3)}),
    "transposed conv": (IMAGE + "{ y = ConvTranspose (x, w, b) }", {"w": numbers(4, 6, 3, 3), "b": numbers(6)}),
    "grouped transposed conv": (IMAGE + "{ y = ConvTranspose <group=2> (x, w) }", {"w": numbers(4, 3, 2, 2)}),
    "gemm": (
        ROWS + "{ y = Gemm <alpha=0.5, beta=2.0, transB=1> (x, w, b) }",
        {"w": numbers(6, 4), "b": numbers(1, 6)},
    ),
    "gemm without bias": (ROWS + "{ y = Gemm <beta=2.0> (x, w) }", {"w": numbers(4, 6)}),
    "gemm with one number for a bias": (ROWS + "{ y = Gemm (x, w, b) }", {"w": numbers(4, 6), "b": numbers(1)}),
    "product and sum": (ROWS + "{ m = MatMul (x, w)  y = Add (b, m) }", {"w": numbers(4, 6), "b": numbers(6)}),
    "turned product": (
        ROWS + "{ t = Transpose (w)  m = MatMul (x, t)  y = Add (m, b) }",
        {"w": numbers(6, 4), "b": numbers(1, 6)},
    ),
    "shared bias": (
        ROWS + "{ a = Gemm (x, w, b)  c = Relu (b)  d = Mul (c, zero)  y = Add (a, d) }",
        {"w": numbers(4, 6), "b": numbers(6), "zero": np.zeros(1, np.float32)},
    ),
    "batch norm": (
        IMAGE + "{ y = BatchNormalization <epsilon=0.01> (x, s, b, m, v) }",
        {"s": numbers(4), "b": numbers(4), "m": numbers(4), "v": numbers(4) ** 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_scaled_and_shifted(make_graph: MakeGraph, draw: Draw, case: str) -> None:
    text, weights = CASES[case]
    graph = make_graph(text, **weights)
    changed = graph.clone()
    [found] = find_rescalable(changed)
    feed = {"x": draw(*(3 if dim == "n" else int(dim or 0) for dim in graph.inputs[0].shape))}
    [before] = run_session(open_graph(graph), feed)
    channels = before.shape[found.axis]
    gain, shift = np.exp2(draw(channels)), draw(channels)
    found.rescale(changed, gain, shift)
    changed.check()
    [after] = run_session(open_graph(changed), feed)
    shape = [channels if axis == found.axis % before.ndim else 1 for axis in range(before.ndim)]
    added_after = weights["b"] if "product" in case else 0
    expected = (before - added_after) * gain.reshape(shape) + shift.reshape(shape) + added_after
    np.testing.assert_allclose(after, expected, atol=1e-4)
    assert np.array_equal(run_session(open_graph(graph), feed)[0], before)


def test_batch_norm_keeps_what_is_trained(make_graph: MakeGraph) -> None:
    text, weights = CASES["batch norm"]
    graph = make_graph(text, **weights)
    [found] = find_rescalable(graph)
    found.rescale(graph, np.full(4, 2.0), np.ones(4))
    assert np.array_equal(graph.array("s"), weights["s"])
    assert np.array_equal(graph.array("b"), weights["b"])
    np.testing.assert_allclose(graph.array("v") + 0.01, (weights["v"] + 0.01) / 4, rtol=1e-5)


def test_a_norm_whose_scale_is_zero_stays(make_graph: MakeGraph) -> None:
    text, weights = CASES["batch norm"]
    graph = make_graph(text, **{**weights, "s": np.zeros(4, np.float32)})
    [found] = find_rescalable(graph)
    found.rescale(graph, np.full(4, 2.0), np.ones(4))
    assert np.array_equal(graph.array("m"), weights["m"])


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_types_stay(make_graph: MakeGraph, dtype: str) -> None:
    numpy_type = np.float16 if dtype == "float16" else np.float64
    graph = make_graph(
        f"g ({dtype}[n, 4] x) => ({dtype}[n, 6] y) {{ y = Gemm (x, w) }}", w=numbers(4, 6).astype(numpy_type)
    )
    [found] = find_rescalable(graph)
    found.rescale(graph, np.full(6, 2.0), np.ones(6))
    graph.check()
    x = np.zeros((2, 4), numpy_type)
    assert run_session(open_graph(graph), {"x": x})[0].tolist() == np.ones((2, 6)).tolist()


LEFT_OUT: dict[str, tuple[str, dict[str, Any]]] = {
    "a weight read twice": (ROWS + "{ a = Gemm (x, w)  b = Gemm (x, w)  y = Add (a, b) }", {"w": numbers(4, 6)}),
    "a product without bias": (ROWS + "{ m = MatMul (x, w)  y = Relu (m) }", {"w": numbers(4, 6)}),
    "a product added to another": (ROWS + "{ m = MatMul (x, w)  y = Add (m, m) }", {"w": numbers(4, 6)}),
    "a product read twice": (
        "g (float[n, 4] x) => (float[n, 6] y, float[n, 6] m) { m = MatMul (x, w)  y = Add (m, b) }",
        {"w": numbers(4, 6), "b": numbers(6)},
    ),
    "a bias for each row": (
        "g (float[6, 4] x) => (float[6, 6] y) { y = Gemm (x, w, b) }",
        {"w": numbers(4, 6), "b": numbers(6, 1)},
    ),
    "a bias that counts for nothing": (ROWS + "{ y = Gemm <beta=0.0> (x, w) }", {"w": numbers(4, 6)}),
    "a computed weight": (ROWS + "{ t = Relu (w)  y = Gemm (x, t) }", {"w": numbers(4, 6)}),
    "a weight on the left": (
        "g (float[4, n] x) => (float[6, n] y) { m = MatMul (w, x)  y = Add (m, b) }",
        {"w": numbers(6, 4), "b": numbers(1)},
    ),
    "shared statistics": (
        IMAGE + "{ a = BatchNormalization (x, s, s, s, v)  y = Relu (a) }",
        {"s": numbers(4), "v": numbers(4) ** 2},
    ),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_left_out(make_graph: MakeGraph, case: str) -> None:
    text, weights = LEFT_OUT[case]
    assert find_rescalable(make_graph(text, **weights)) == []


def test_of_a_layer_and_its_norm_the_norm_is_taken(make_graph: MakeGraph) -> None:
    graph = make_graph(
        IMAGE + "{ c = Conv (x, w)  [norm] y = BatchNormalization (c, s, b, m, v) }",
        w=numbers(6, 4, 3, 3),
        s=numbers(6),
        b=numbers(6),
        m=numbers(6),
        v=numbers(6) ** 2,
    )
    assert [found.node.name for found in find_rescalable(graph)] == ["norm"]


def test_layers_in_bodies_are_found(make_if_model: Callable[..., Any]) -> None:
    graph = Graph.from_proto(make_if_model())
    assert {found.node.name for found in find_rescalable(graph)} == {"wide1", "wide2", "thin"}
