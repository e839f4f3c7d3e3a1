"""The rules of matrix products: what is summed over goes where one factor is zero, the rest by itself."""

import pytest

from tests.engine.graph.channels.comparing import obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph.channels import find_groups


@pytest.mark.parametrize(
    ("transposed", "shape", "tied"),
    [(0, (6, 8), "8: last[0] v[0] w[1]"), (1, (8, 6), "8: last[0] v[0] w[0]")],
)
def test_gemm(transposed: int, shape: tuple[int, int], tied: str) -> None:
    graph = make(
        f"""(float[N, 6] x) => (float[N, 3] y) {{
          a = Gemm <transB = {transposed}, alpha = 0.5, beta = 2.0> (x, w, v)
          b = Relu(a)
          y = Gemm(b, last)
        }}""",
        w=shape,
        v=(8,),
        last=(8, 3),
    )
    assert ties(prune_exactly(graph)) == [tied]
    assert obstacles(graph) == {"last": "it is tied to the model's output 'y'"}


@pytest.mark.parametrize("bias", [(1, 8), (1,), (1, 1)])
def test_gemm_with_a_bias_that_broadcasts(bias: tuple[int, ...]) -> None:
    """What is added to all rows alike is tied, one number for all is not, and keeps the sum of masked ones."""
    text = "(float[N, 6] x) => (float[N, 3] y) { a = Gemm(x, w, v) b = Gemm(a, last) y = Relu(b) }"
    graph = make(text, w=(6, 8), v=bias, last=(8, 3))
    assert ties(prune_exactly(graph)) == [f"8: last[0]{' v[1]' if bias[-1] == 8 else ''} w[1]"]


def test_a_bias_for_all_is_not_zero_where_masked() -> None:
    text = "(float[N, 6] x) => (float[N] y) { a = Gemm(x, w, v) y = ReduceSum <keepdims = 0> (a, ends) }"
    assert find_groups(make(text, w=(6, 8), v=(8,), ends=[1])).groups
    assert "runs over it" in obstacles(make(text, w=(6, 8), v=(1,), ends=[1]))["w"]


def test_a_product_with_rows_and_columns_of_weights() -> None:
    """A matrix on the left has its rows removed, as one on the right its columns."""
    graph = make(
        """(float[N, 5, 6] x) => (float[N, 2, 3] y) {
          a = MatMul(x, w)
          b = MatMul(u, a)
          c = Relu(b)
          d = MatMul(t, c)
          y = MatMul(d, last)
        }""",
        w=(6, 8),
        u=(7, 5),
        t=(2, 7),
        last=(8, 3),
    )
    assert ties(prune_exactly(graph)) == ["7: t[1] u[0]", "8: last[0] w[1]"]


def test_matrices_in_a_batch_each_have_their_own() -> None:
    """[experts, in, out]: the same columns of every expert go, and whole experts where they are summed."""
    graph = make(
        """(float[N, 1, 5, 6] x) => (float[N, 5, 3] y) {
          a = MatMul(x, w)
          b = Relu(a)
          c = MatMul(b, last)
          y = ReduceSum <keepdims = 0> (c, experts)
        }""",
        w=(4, 6, 8),
        last=(4, 8, 3),
        experts=[1],
    )
    assert "8: last[1] w[2]" in ties(prune_exactly(graph))


def test_two_computed_factors_are_tied_and_one_must_be_zero() -> None:
    text = """(float[N, 5, 6] x) => (float[N, 5, 5] y) {{
      q = MatMul(x, w)
      k = MatMul(x, v)
      {nodes}
      t = Transpose <perm = [0, 2, 1]> (k1)
      y = MatMul(q1, t)
    }}"""
    one = make(text.format(nodes="q1 = Relu(q) k1 = Sigmoid(k)"), w=(6, 8), v=(6, 8))
    assert ties(prune_exactly(one)) == ["8: v[1] w[1]"]
    none = make(text.format(nodes="q1 = Sigmoid(q) k1 = Sigmoid(k)"), w=(6, 8), v=(6, 8))
    assert "neither would be zero" in obstacles(none)["w"]


def test_a_tied_matrix_loses_the_same_both_times() -> None:
    graph = make(
        """(int64[N, L] x) => (float[N, L, 20] y) {
          e = Gather(table, x)
          a = MatMul(e, w)
          b = Relu(a)
          c = MatMul(b, v)
          t = Transpose(table)
          y = MatMul(c, t)
        }""",
        table=(20, 6),
        w=(6, 8),
        v=(8, 6),
    )
    assert ties(prune_exactly(graph)) == ["6: table[1] v[1] w[0]", "8: v[0] w[1]"]


def test_vectors() -> None:
    graph = make(
        "(float[5, 6] x) => (float y) { a = MatMul(x, w) b = MatMul(a, v) c = MatMul(u, a) d = MatMul(c, v) "
        "e = ReduceSum <keepdims = 0> (b) y = Add(d, e) }",
        w=(6, 8),
        v=(8,),
        u=(5,),
    )
    assert ties(prune_exactly(graph)) == ["8: v[0] w[1]"]
