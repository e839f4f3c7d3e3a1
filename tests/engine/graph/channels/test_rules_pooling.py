"""The rules of pooling and resizing: channels pass, positions do not."""

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph

FREE = ["8: first[0] last[1]"]


def between(nodes: str, height: int | str = 8, **constants: object) -> Graph:
    """`nodes` make `b` of `a` [N, 8, height, 8]."""
    return make(
        f"""(float[N, 3, {height}, 8] x) => (float[N, 2, P, Q] y) {{
          a = Conv(x, first)
          {nodes}
          c = Relu(b)
          y = Conv(c, last)
        }}""",
        first=(8, 3, 1, 1),
        last=(2, 8, 1, 1),
        **constants,
    )


@pytest.mark.parametrize(
    "node",
    [
        "MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>",
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>",
        "LpPool <kernel_shape = [2, 2], p = 2>",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
    ],
)
def test_channels_pass(node: str) -> None:
    assert ties(prune_exactly(between(f"b = {node} (a)"))) == FREE


def test_features_where_positions_lie_stay() -> None:
    graph = make(
        """(float[N, 5, 3] x) => (float[N, 5, 2] y) {
          a = MatMul(x, first)
          b = AveragePool <kernel_shape = [3], pads = [1, 1]> (a)
          y = MatMul(b, last)
        }""",
        first=(3, 8),
        last=(8, 2),
    )
    assert "looks at several" in obstacles(graph)["first"]


UP = {
    "by scales": "b = Resize(a, , scales)",
    "to stored sizes": "n = Shape <end = 1> (a) t = Concat <axis = 0> (n, sizes) b = Resize(a, , , t)",
    "to computed sizes": "s = Shape(a) t = Mul(s, twice) b = Resize(a, , , t)",
    "of named axes": "b = Resize <axes = [2, 3]> (a, , , sides)",
    "linear": 'b = Resize <mode = "linear"> (a, , scales)',
}


@pytest.mark.parametrize("kind", UP)
@pytest.mark.parametrize("height", [8, "H"])
def test_resized_channels_pass(kind: str, height: int | str) -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    graph = between(UP[kind], height, scales=scales, sizes=[8, 16, 16], twice=[1, 1, 2, 2], sides=[16, 16])
    assert ties(prune_exactly(graph)) == FREE


def test_interpolated_channels_stay() -> None:
    nodes = "r = Resize(a, , scales) s = Slice(r, zero, eight, one) y = Conv(s, last)"
    graph = make(
        f"(float[N, 3, 8, 8] x) => (float[N, 2, 8, 8] y) {{ a = Conv(x, first) {nodes} }}",
        first=(8, 3, 1, 1),
        last=(2, 8, 1, 1),
        scales=np.array([1, 2, 1, 1], np.float32),
        zero=[0],
        eight=[8],
        one=[1],
    )
    assert "interpolates" in obstacles(graph)["first"]


POOL = "p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)"


def test_pooled_and_put_back_where_it_was() -> None:
    nodes = f"{POOL} d = Conv(p, w) b = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (d, i)"
    assert ties(prune_exactly(between(nodes, w=(8, 8, 1, 1)))) == ["8: first[0] last[1] w[0] w[1]"]


def test_indices_that_are_read_otherwise_keep_channels() -> None:
    graph = between(f"{POOL} f = Cast <to = 1> (i) b = Add(p, f)")
    assert "gives indices" in obstacles(graph)["first"]


def test_indices_put_into_another_shape_keep_channels() -> None:
    nodes = f"{POOL} b = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, i)"
    assert "another shape" in obstacles(between(nodes, 9))["first"]
