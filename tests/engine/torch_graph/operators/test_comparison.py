from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from worker.engine import Graph, TorchGraph

Node = Callable[..., list[np.ndarray]]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64, np.int8, np.float16])
@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons_of_every_width(op: str, dtype: type, expect_node: Node) -> None:
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else np.nan
    numbers = np.array([0, 1, top, 5], dtype)
    expect_node(op, [numbers[:, None], numbers])


@pytest.mark.parametrize(("negative", "positive"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_infinities_that_count(negative: int, positive: int, expect_node: Node) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0], np.float32)
    expect_node("IsInf", [x], detect_negative=negative, detect_positive=positive)


def test_a_choice_of_nothing(expect_node: Node) -> None:
    expect_node("Where", [np.zeros((0, 1), bool), np.zeros(3, np.uint64), np.ones((), np.uint64)])


def test_shape_arithmetic_never_leaves_python() -> None:
    """(N, 8) becomes (max(N, 8 / 2 - 5 % 3), -1), by Where, Cast and comparisons, in one compiled graph."""
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 8] x) => (y)
    <int64 two = {2}, int64 five = {5}, int64 three = {3}, int64 none = {-1}, int64[1] axis = {0}> {
        n = Shape <start = 0, end = 1> (x)
        eight = Shape <start = 1> (x)
        half = Div(eight, two)
        rest = Mod(five, three)
        least = Sub(half, rest)
        largest = Max(n, least)
        is_less = Less(largest, least)
        is_open = Not(is_less)
        chosen = Where(is_open, largest, n)
        small = Cast <to = 6> (chosen)
        large = Cast <to = 7> (small)
        total = ReduceSum(large)
        left = Unsqueeze(none, axis)
        sizes = Concat <axis = 0> (total, left)
        y = Reshape(x, sizes)
    }"""
    module = TorchGraph(Graph.from_proto(onnx.parser.parse_model(text)))
    compiled = torch.compile(module, fullgraph=True, backend="eager", dynamic=True)
    for rows in (4, 6):
        (y,) = compiled(torch.zeros(rows, 8))
        assert y.shape == (rows, 8)
