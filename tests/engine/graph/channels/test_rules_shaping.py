"""The rules of shapes as numbers, and of tensors that are made or widened to a shape."""

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph


def between(nodes: str, out: int = 8, **constants: object) -> Graph:
    """`nodes` make `b` [N, L, out] of `a` [N, L, 8]."""
    return make(
        f"""(float[N, L, 3] x) => (float[N, L, 2] y) {{
          a = MatMul(x, first)
          {nodes}
          y = MatMul(b, last)
        }}""",
        first=(3, 8),
        last=(out, 2),
        **constants,
    )


ROOT = {
    "root of the width": "s = Shape(a) d = Gather(s, two) f = Cast <to = 1> (d) r = Sqrt(f) b = Div(a, r)",
    "from the end": "s = Shape <start = -1> (a) f = Cast <to = 1> (s) b = Mul(a, f)",
    "with a free one": "s = Shape <start = 1> (a) d = Gather(s, one) f = Cast <to = 1> (d) b = Div(a, f)",
    "product of all": "s = Shape(a) p = ReduceProd <keepdims = 0> (s) f = Cast <to = 1> (p) b = Div(a, f)",
}


@pytest.mark.parametrize("kind", ROOT)
def test_arithmetic_goes_on_with_the_width_from_before(kind: str) -> None:
    graph = between(ROOT[kind], two=np.array(2), one=np.array(1))
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0]"]


def test_a_shape_that_is_an_output_stays_what_it_was() -> None:
    graph = make(
        """(float[N, L, 3] x) => (float[N, L, 2] y, int64[3] s) {
          a = MatMul(x, first)
          s = Shape(a)
          y = MatMul(a, last)
        }""",
        first=(3, 8),
        last=(8, 2),
    )
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0]"]


def test_a_count_of_elements_keeps_them() -> None:
    graph = between("n = Size(a) f = Cast <to = 1> (n) b = Div(a, f)")
    assert "counts it" in obstacles(graph)["first"]


def test_copies_go_with_what_they_meet() -> None:
    """One number for each position, widened to all features."""
    graph = between("m = ReduceMax(x, ends) s = Shape(a) e = Expand(m, s) b = Mul(a, e)", ends=[-1])
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0]"]


@pytest.mark.parametrize("target", ["ones", "s"])
def test_a_target_of_ones_stays_so(target: str) -> None:
    """Expand to [1, 1, 8], or to the shape itself, of a tensor that has those sizes."""
    graph = between(f"s = Shape(a) e = Expand(a, {target}) b = Relu(e)", ones=[1, 1, 8])
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0]"]


def test_a_target_of_ones_stands_for_what_is_there() -> None:
    """Channels and samples in one axis: how many there are the target leaves open."""
    graph = make(
        """(float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
          a = Conv(x, first)
          r = Reshape(a, apart)
          e = Expand(r, ones)
          m = ReduceMean(e, one)
          b = Reshape(m, back)
          y = Conv(b, last)
        }""",
        first=(12, 3, 1, 1),
        apart=[-1, 1, 4, 4],
        ones=[1, 2, 1, 1],
        one=[1],
        back=[-1, 12, 4, 4],
        last=(2, 12, 1, 1),
    )
    assert ties(prune_exactly(graph)) == ["12: first[0] last[1]"]


def test_a_token_for_every_sample() -> None:
    nodes = """n = Shape <end = 1> (x) t = Concat <axis = 0> (n, tail) e = Expand(token, t)
               c = Concat <axis = 1> (e, a) b = Slice(c, one, all, one)"""
    graph = between(nodes, token=(1, 1, 8), tail=[1, 8], one=[1], all=[2**62])
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0] token[2]"]


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_constant_of_a_shape(value: float) -> None:
    nodes = f"s = Shape(a) z = ConstantOfShape <value = float[1] {{{value}}}> (s) b = Add(a, z)"
    assert ties(prune_exactly(between(nodes))) == ["8: first[1] last[0]"]


def test_sums_over_a_constant_of_a_shape() -> None:
    """Zeros add nothing where masked, twos do."""
    text = """(float[N, L, 3] x) => (float[N, L, 1] y) {{
      a = MatMul(x, first)
      s = Shape(a)
      z = ConstantOfShape <value = float[1] {{{value}}}> (s)
      b = Add(a, z)
      y = ReduceSum(b, ends)
    }}"""
    assert ties(prune_exactly(make(text.format(value=0.0), first=(3, 8), ends=[-1]))) == ["8: first[1]"]
    assert "runs over it" in obstacles(make(text.format(value=2.0), first=(3, 8), ends=[-1]))["first"]


def test_repetitions_go_together() -> None:
    assert ties(prune_exactly(between("b = Tile(a, repeats)", 16, repeats=[1, 1, 2]))) == ["8: first[1] last[0]"]


def test_repetitions_that_the_input_counts_leave_features_alone() -> None:
    nodes = """m = ReduceMean(a, one) n = Shape <start = 1, end = 2> (a) t = Concat <axis = 0> (one, n, one)
               r = Tile(m, t) b = Add(a, r)"""
    graph = between(nodes, one=[1])
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0]"]


def test_as_many_repetitions_as_samples_keep_features() -> None:
    graph = make(
        """(float[N, 3] x) => (float[N, P] y) {
          a = MatMul(x, first)
          n = Shape <end = 1> (x)
          t = Concat <axis = 0> (one, n)
          y = Tile(a, t)
        }""",
        first=(3, 8),
        one=[1],
    )
    assert "repeats it" in obstacles(graph)["first"]


@pytest.mark.parametrize("node", ["r = Range(zero, w, one)", "r = NonZero(w)"])
def test_numbers_made_of_sizes_are_followed_by_nothing(node: str) -> None:
    """A position for every feature is a number of its own: it stays."""
    nodes = f"s = Shape(a) w = Gather(s, two) {node} f = Cast <to = 1> (r) b = Add(a, f)"
    graph = between(nodes, zero=np.array(0), one=np.array(1), two=np.array(2))
    assert obstacles(graph)["first"]
