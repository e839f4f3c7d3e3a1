"""Gathering, scattering and choosing by value: forms that ONNX's own node tests leave out, and gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

NodeRunner = Callable[..., list[np.ndarray]]

ROWS = np.arange(24, dtype=np.float32).reshape(4, 6)


def parse(text: str, opset: int = 20) -> TorchGraph:
    return TorchGraph(
        Graph.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}'))
    )


@pytest.mark.parametrize("indices", [2, -1, [1, 2, 3], [-2, -1], [-1, 0], [3, 1], [[0, -1], [1, 1]], []])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_at_known_and_at_fed_positions(expect_node: NodeRunner, indices: Any, axis: Any) -> None:
    at = np.array(indices, np.int64)
    (wanted,) = expect_node("Gather", [ROWS, at], axis=axis)
    literal = ", ".join(map(str, at.reshape(-1).tolist()))
    sizes = ", ".join(map(str, at.shape))
    known = parse(
        f"g (float[4, 6] x) => (float y) <int64{f'[{sizes}]' if at.ndim else ''} i = {{{literal}}}>"
        f" {{ y = Gather <axis = {axis}> (x, i) }}"
    )
    (got,) = known(torch.from_numpy(ROWS))
    np.testing.assert_array_equal(got.numpy(), wanted)


@pytest.mark.parametrize("index", [4, -5])
def test_gather_outside_the_axis_is_refused(run_node: NodeRunner, index: int) -> None:
    with pytest.raises(SlimlineError) as caught:
        run_node("Gather", [ROWS, np.array([0, index])])
    assert caught.value.failure.node == "Gather"


def test_scatter_nd_outside_a_dimension_is_refused_though_the_tensor_is_large_enough(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError):
        run_node("ScatterND", [ROWS, np.array([[0, 7]]), np.zeros(1, np.float32)], reduction="mul")


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.uint16, np.uint64])
def test_scatter_in_every_type(expect_node: NodeRunner, reduction: str, dtype: Any) -> None:
    x = (ROWS * 3 % 7).astype(dtype)
    high = np.array([[np.iinfo(dtype).max, 2, 9]], dtype) if dtype != np.float64 else np.array([[0.5, -2, 9]])
    with np.errstate(over="ignore"):
        expect_node("ScatterElements", [x, np.array([[-1, 0, 3]]), high], axis=1, reduction=reduction)
        expect_node("ScatterND", [x, np.array([[-1, 0], [2, -6]]), high[0, :2]], reduction=reduction)


def test_the_old_scatter(run_node: NodeRunner) -> None:
    (out,) = run_node("Scatter", [ROWS, np.array([[1, -1]]), np.array([[50, 60]], np.float32)], axis=1, opset=9)
    assert out[0].tolist() == [0, 50, 2, 3, 4, 60]


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint64])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_takes_the_first_of_equals(expect_node: NodeRunner, dtype: Any, largest: int) -> None:
    x = np.array([[3, 1, 3, 3, 0, 1, 1]], dtype)
    _, indices = expect_node("TopK", [x, np.array([4])], outputs=2, largest=largest, opset=24)
    assert indices.tolist() == ([[0, 2, 3, 1]] if largest else [[4, 1, 5, 6]])


def test_the_top_k_of_old_opsets(expect_node: NodeRunner) -> None:
    expect_node("TopK", [ROWS, np.array([2])], outputs=2, axis=0, opset=10)
    expect_node("TopK", [ROWS], outputs=2, axis=0, k=2, opset=9)


def test_top_k_counts_nan_as_the_largest(expect_node: NodeRunner) -> None:
    expect_node("TopK", [np.array([1, np.nan, 2], np.float32), np.array([2])], outputs=2)


@pytest.mark.parametrize("axis", [{}, {"axis": 0}, {"axis": -1}])
@pytest.mark.parametrize("dtype", [np.float32, np.uint32])
def test_unique_with_where_and_how_often(expect_node: NodeRunner, axis: Any, dtype: Any) -> None:
    expect_node("Unique", [np.array([[2, 1, 2], [0, 1, 0], [2, 1, 2]], dtype)], outputs=4, **axis)


def test_unique_in_order_of_appearance(run_node: NodeRunner) -> None:
    (values,) = run_node("Unique", [np.array([5, 2, 5, 9, 2])], sorted=0)
    assert values.tolist() == [5, 2, 9]
    values, first, group, counts = run_node("Unique", [np.array([[5, 2, 5, 9]])], outputs=4, sorted=0, axis=1)
    assert values.tolist() == [[5, 2, 9]]
    assert (first.tolist(), group.tolist(), counts.tolist()) == ([0, 1, 3], [0, 1, 0, 2], [2, 1, 1])


def test_unique_counts_all_nan_as_one_and_knows_nothing(expect_node: NodeRunner) -> None:
    expect_node("Unique", [np.array([np.nan, 1, np.nan], np.float32)], outputs=4)
    expect_node("Unique", [np.zeros(0, np.float32)], outputs=4)


def test_non_zero_of_a_number(expect_node: NodeRunner) -> None:
    expect_node("NonZero", [np.array([[0, 3], [7, 0]], np.uint64)])


@pytest.mark.parametrize("is_centered", [0, 1])
def test_suppression_of_many_boxes(expect_node: NodeRunner, is_centered: int) -> None:
    """More than are looked at together, many of them equally good."""
    random = np.random.default_rng(0)
    boxes = random.random((1, 400, 4)).astype(np.float32)
    scores = random.random((1, 2, 400)).astype(np.float32).round(2)
    numbers = [np.array([300]), np.array([0.3], np.float32), np.array([0.05], np.float32)]
    (rows,) = expect_node("NonMaxSuppression", [boxes, scores, *numbers], center_point_box=is_centered)
    assert len(rows) > 40


def test_suppression_asked_for_nothing(run_node: NodeRunner) -> None:
    (rows,) = run_node("NonMaxSuppression", [np.ones((1, 2, 4), np.float32), np.ones((1, 1, 2), np.float32)])
    assert rows.shape == (0, 3)


GRAPHS = {
    "gather": "y = Gather <axis = 1> (x, i)",
    "gather_elements": "y = GatherElements <axis = 1> (x, e)",
    "gather_nd": "y = GatherND (x, d)",
    "scatter": 'y = ScatterElements <axis = 1, reduction = "mul"> (x, e, u)',
    "scatter_nd": 'u1 = Reshape (u, four) y = ScatterND <reduction = "max"> (x, d4, u1)',
    "top_k": "y, places = TopK <axis = 0> (x, one)",
    "unique": "y = Unique (x)",
    "pad": 'y = Pad <mode = "wrap"> (x, p)',
    "slice": "y = Slice (x, one, end, zero, back)",
    "tensor_scatter": 'y = TensorScatter <mode = "circular"> (x3, u3, w)',
}
CONSTANTS = (
    "int64[2, 2] i = {0, -1, 1, 1}, int64[2, 2] e = {2, 0, -1, 1}, int64[3, 2] d = {0, 1, -1, 0, 0, 1},"
    "int64[4, 2] d4 = {0, 0, 1, 2, 0, 1, 1, -3}, int64[1] one = {1}, int64[1] four = {4}, int64[1] end = {-9},"
    "int64[1] zero = {0}, int64[1] back = {-1}, int64[4] p = {1, 2, 0, 5},"
    "int64[1] w = {2}, int64[3] cube = {1, 3, 2}, int64[3] top = {1, 2, 2}"
)


@pytest.mark.parametrize("body", GRAPHS.values(), ids=GRAPHS)
def test_gradients_reach_what_was_taken(body: str) -> None:
    before = "x3 = Reshape (x, cube) u3 = Reshape (u, top)" if "x3" in body else ""
    module = parse(f"g (double[2, 3] x, double[2, 2] u) => (double y) <{CONSTANTS}> {{ {before} {body} }}", opset=24)
    x = torch.tensor([[0.3, -1.2, 2.0], [0.9, 0.1, -0.7]], dtype=torch.float64, requires_grad=True)
    u = torch.tensor([[0.5, -0.4], [1.5, 0.25]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: module(*inputs)[0], (x, u))


def test_a_cache_is_written_in_a_circle() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 24]> g (float16[2, 4, 3] x, float16[2, 2, 3] u, int64[2] w) => (float16 y)'
        ' { y = TensorScatter <mode = "circular"> (x, u, w) }'
    )
    feed = {"x": np.zeros((2, 4, 3), np.float16), "u": np.ones((2, 2, 3), np.float16), "w": np.array([3, 6])}
    (wanted,) = ReferenceEvaluator(model).run(None, feed)
    (got,) = TorchGraph(Graph.from_proto(model))(*map(torch.from_numpy, feed.values()))
    np.testing.assert_array_equal(got.numpy(), wanted)
