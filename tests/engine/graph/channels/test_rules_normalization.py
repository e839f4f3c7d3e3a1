"""The rules of normalizations: single channels and whole groups go, a width only under a root mean square."""

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph

ONES = np.ones(8, np.float32)


def image(nodes: str, **constants: object) -> Graph:
    """`nodes` make `b` of `a` [N, 8, 6, 6]."""
    return make(
        f"""(float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y) {{
          a = Conv(x, first)
          {nodes}
          c = Relu(b)
          y = Conv(c, last)
        }}""",
        opset=23,
        first=(8, 3, 1, 1),
        last=(4, 8, 1, 1),
        **constants,
    )


def sequence(nodes: str, **constants: object) -> Graph:
    """`nodes` make `b` of `a` [N, L, 8]."""
    return make(
        f"""(float[N, L, 6] x) => (float[N, L, 3] y) {{
          a = MatMul(x, first)
          {nodes}
          y = MatMul(b, last)
        }}""",
        opset=23,
        first=(6, 8),
        last=(8, 3),
        **constants,
    )


def test_batch_norm_has_four_vectors_of_channels() -> None:
    graph = image("b = BatchNormalization(a, s, o, m, v)", s=(8,), o=(8,), m=(8,), v=ONES)
    assert ties(prune_exactly(graph)) == ["8: first[0] last[1] m[0] o[0] s[0] v[0]"]


def test_batch_norm_over_positions_leaves_no_zeros_in_features() -> None:
    """Features go where a matrix multiplies them, not where they are summed: there would be the bias left."""
    constants = {"s": (5,), "o": (5,), "m": (5,), "v": np.ones(5, np.float32), "first": (3, 8), "ends": [2]}
    text = """(float[N, 5, 3] x) => (float[N, 5, {}] y) {{
      a = MatMul(x, first)
      b = BatchNormalization(a, s, o, m, v)
      y = {}
    }}"""
    assert ties(prune_exactly(make(text.format(2, "MatMul(b, last)"), last=(8, 2), **constants))) == [
        "8: first[1] last[0]"
    ]
    assert "runs over it" in obstacles(make(text.format(1, "ReduceSum(b, ends)"), **constants))["first"]


def test_instance_norm() -> None:
    graph = image("b = InstanceNormalization(a, s, o)", s=(8,), o=(8,))
    assert ties(prune_exactly(graph)) == ["8: first[0] last[1] o[0] s[0]"]


def test_group_norm_loses_whole_groups() -> None:
    groups = prune_exactly(image("b = GroupNormalization <num_groups = 4> (a, s, o)", s=(8,), o=(8,)))
    assert ties(groups) == ["4: first[0] last[1] o[0] s[0]"]
    (node,) = (node for node in groups.remove([0, 2]).nodes() if node.op_type == "GroupNormalization")
    assert node.attributes["num_groups"].as_int() == 2


def test_group_norm_as_older_exporters_write_it() -> None:
    nodes = """r = Reshape(a, apart) n = InstanceNormalization(r, s, o) z = Shape(a) t = Reshape(n, z)
               u = Mul(t, scale) b = Add(u, bias)"""
    graph = image(nodes, apart=[0, 4, -1], s=ONES[:4], o=(4,), scale=(8, 1, 1), bias=(8, 1, 1))
    assert ties(prune_exactly(graph)) == ["4: bias[0] first[0] last[1] o[0] s[0] scale[0]"]


def test_one_group_of_all_channels_loses_none() -> None:
    graph = image("b = GroupNormalization <num_groups = 1> (a, s, o)", s=(8,), o=(8,))
    assert "another mean and variance" in obstacles(graph)["first"]


def test_the_width_of_a_layer_norm_stays_and_says_why() -> None:
    graph = sequence("b = LayerNormalization(a, s, o)", s=(8,), o=(8,))
    assert obstacles(graph)["first"].startswith("without it there would be another mean and variance in LayerNorm")


def test_what_lies_beside_a_layer_norm_goes() -> None:
    """Normalized over the last two axes, channels before them are free."""
    graph = image("b = LayerNormalization <axis = 2> (a, s, o)", s=(6, 6), o=(6, 6))
    assert ties(prune_exactly(graph)) == ["8: first[0] last[1]"]


RMS = {
    "operator": "b = RMSNormalization <epsilon = 0.1> (a, s)",
    "power": "p = Pow(a, two) m = ReduceMean(p, ends) e = Add(m, eps) r = Sqrt(e) d = Div(a, r) b = Mul(d, s)",
    "product": "p = Mul(a, a) m = ReduceMean(p, ends) e = Add(eps, m) r = Sqrt(e) i = Reciprocal(r) d = Mul(a, i) "
    "b = Mul(s, d)",
    "sum": "p = Mul(a, a) m = ReduceSum(p, ends) e = Add(eps, m) r = Sqrt(e) d = Div(a, r) b = Mul(s, d)",
}


@pytest.mark.parametrize("kind", RMS)
def test_a_width_goes_under_a_root_mean_square(kind: str) -> None:
    graph = sequence(RMS[kind], s=(8,), two=np.float32(2), eps=np.float32(0.1), ends=[-1])
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0] s[0]"]


def test_a_root_mean_square_of_what_is_not_zero_keeps_its_width() -> None:
    graph = sequence("c = Sigmoid(a) b = RMSNormalization(c, s)", s=(8,))
    assert "another mean" in obstacles(graph)["first"]


def test_a_scale_that_two_norms_share_is_rescaled_for_each_alone() -> None:
    nodes = """c = RMSNormalization <epsilon = 0.1> (a, s) d = MatMul(c, w) e = MatMul(d, v)
               f = Mul(s, a) g = Add(e, f) b = RMSNormalization <epsilon = 0.1> (g, s)"""
    groups = prune_exactly(sequence(nodes, s=(8,), w=(8, 5), v=(5, 8)))
    assert ties(groups) == ["5: v[0] w[1]", "8: first[1] last[0] s[0] v[1] w[0]"]


def test_a_residual_stream_of_two_root_mean_squares() -> None:
    nodes = """c = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.1> (a, a, s, t)
               n, m, i, r = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.1> (a, c, s)
               b = Add(n, r)"""
    assert ties(prune_exactly(sequence(nodes, s=(8,), t=(8,)))) == ["8: first[1] last[0] s[0] t[0]"]


def test_without_epsilon_the_operators_own_is_scaled() -> None:
    """So small a width that the default of 1e-5, and of 1e-12 with a sum, counts."""
    for nodes in ("b = RMSNormalization(t, s)", "b = com.microsoft.SkipSimplifiedLayerNormalization(t, t, s)"):
        graph = sequence("t = Mul(a, tiny) " + nodes, s=(8,), tiny=np.full(8, 1e-6, np.float32))
        prune_exactly(graph)


def test_statistics_that_are_read_keep_the_width() -> None:
    nodes = "n, m, i = com.microsoft.SkipSimplifiedLayerNormalization(a, a, s) b = Mul(n, i)"
    assert "another mean" in obstacles(sequence(nodes, s=(8,)))["first"]


@pytest.mark.parametrize("axis", [-1, 2])
def test_a_softmax_keeps_its_axis(axis: int) -> None:
    graph = sequence(f"b = Softmax <axis = {axis}> (a)")
    assert obstacles(graph)["first"].startswith("Softmax")
    assert ties(prune_exactly(sequence("b = Softmax <axis = 1> (a)"))) == ["8: first[1] last[0]"]


def test_a_norm_of_what_is_zero_goes() -> None:
    assert ties(prune_exactly(sequence("b = LpNormalization(a)"))) == ["8: first[1] last[0]"]
    assert "runs over it" in obstacles(sequence("c = Exp(a) b = LpNormalization(c)"))["first"]


def test_neighbouring_channels_stay() -> None:
    assert "neighbouring" in obstacles(image("b = LRN <size = 3> (a)"))["first"]
