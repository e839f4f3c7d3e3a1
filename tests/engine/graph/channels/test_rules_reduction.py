"""The rules of reductions: over channels only what adds nothing where it is zero."""

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import choose, obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups


def reduced(nodes: str, shape: str, axes: list[int], **constants: object) -> Graph:
    """`nodes` make the output `y`, of `shape`, of `a` [N, 8, 6, 5]; `axes` are stored."""
    return make(
        f"(float[N, 3, 6, 5] x) => (float[{shape}] y) {{ a = Conv(x, w, v) {nodes} }}",
        w=(8, 3, 1, 1),
        v=(8,),
        axes=axes,
        **constants,
    )


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare"])
@pytest.mark.parametrize(("axes", "shape"), [([1], "N, 6, 5"), ([-3, 2], "N, 5"), ([1, 2, 3], "N")])
def test_over_channels_that_are_zero(op: str, axes: list[int], shape: str) -> None:
    graph = reduced(f"y = {op} <keepdims = 0> (a, axes)", shape, axes)
    assert ties(prune_exactly(graph)) == ["8: v[0] w[0]"]


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean"])
def test_over_channels_that_are_not(op: str) -> None:
    graph = reduced(f"b = Sigmoid(a) y = {op}(b, axes)", "N, 1, 6, 5", [1])
    assert obstacles(graph)["w"].startswith(op)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"])
def test_over_channels_of_which_zeros_count_too(op: str) -> None:
    assert obstacles(reduced(f"b = Relu(a) y = {op}(b, axes)", "N, 1, 6, 5", [1]))["w"].startswith(op)


def test_without_axes_over_all() -> None:
    assert ties(prune_exactly(reduced("y = ReduceMean(a)", "1, 1, 1, 1", []))) == ["8: v[0] w[0]"]
    assert find_groups(reduced("y = ReduceMean <noop_with_empty_axes = 1> (a)", "N, 8, 6, 5", [])).groups == []


def test_a_mean_is_scaled_only_where_something_went() -> None:
    groups = find_groups(reduced("b = ReduceMean(a, axes) y = Relu(b)", "N, 1, 6, 5", [1]))
    assert "Mul" not in [node.op_type for node in groups.remove([]).nodes()]
    assert "Mul" in [node.op_type for node in groups.remove(choose(groups)).nodes()]


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceLogSumExp", "ReduceProd", "ReduceMean"])
def test_beside_channels(op: str) -> None:
    graph = reduced(f"b = {op} <keepdims = 0> (a, axes) y = MatMul(b, last)", "N, 4", [2, 3], last=(8, 4))
    assert ties(prune_exactly(graph)) == ["8: last[0] v[0] w[0]"]


@pytest.mark.parametrize(("op", "leaves_zero"), [("ReduceProd", True), ("ReduceLogSumExp", False)])
def test_zeros_go_on(op: str, leaves_zero: bool) -> None:
    graph = reduced(f"b = {op}(a, axes) c = Squeeze(b, axes) y = ReduceSum <keepdims = 0> (c, channel)", "N", [2, 3],
                    channel=[1])  # fmt: skip
    assert bool(find_groups(graph).groups) == leaves_zero


NODES = {
    "largest": "t, i = TopK <axis = 2> (a, two) b = Mul(t, t)",
    "where": "i = ArgMax <axis = 2, keepdims = 1> (a) f = Cast <to = 1> (i) b = Mul(f, f)",
    "where, without the axis": "i = ArgMin <axis = -1, keepdims = 0> (a) f = Cast <to = 1> (i) b = Unsqueeze(f, minus)",
    "running sum": "b = CumSum(a, second)",
    "triangle": "b = Trilu <upper = 1> (a)",
}


@pytest.mark.parametrize("kind", NODES)
def test_along_positions_channels_pass(kind: str) -> None:
    nodes = NODES[kind] + " m = ReduceMean <keepdims = 0> (b, axes) y = MatMul(m, last)"
    constants = {"two": [2], "second": np.array(2), "minus": [3], "last": (8, 4)}
    assert ties(prune_exactly(reduced(nodes, "N, 4", [2, 3], **constants))) == ["8: last[0] v[0] w[0]"]


@pytest.mark.parametrize(
    ("op", "node"),
    [
        ("TopK", "b, i = TopK <axis = 1> (a, three)"),
        ("CumSum", "b = CumSum(a, first)"),
        ("ArgMax", "b = ArgMax <axis = 1> (a)"),
    ],
)
def test_along_channels_they_stay(op: str, node: str) -> None:
    nodes = node + " f = Cast <to = 1> (b) y = ReduceSum(f, axes)"
    graph = reduced(nodes, "N, 1, 6, 5", [1], three=[3], first=np.array(1))
    assert obstacles(graph)["w"].startswith(op)
