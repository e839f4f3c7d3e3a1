"""The rule of Einsum: any equation loses the indices of its letters exactly, or keeps them."""

from typing import Any

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import ROUNDING, differs, make_feeds, prune_exactly
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, find_groups


def choose_units(groups: Groups, seed: int) -> list[int]:
    """Units of stored tensors, layers' or not, of which every dimension keeps some."""
    generator = np.random.default_rng(seed)
    gone = generator.permutation(groups.count)[: max(1, groups.count // 2)]
    for member in groups.members:
        if np.isin(member.units, gone).all():
            gone = np.setdiff1d(gone, member.units[:1])
    return [int(unit) for unit in gone]


def check_units(graph: Graph) -> Groups:
    """The groups of a graph, whose units are removed exactly whether they are a layer's channels or not."""
    groups, feeds = find_groups(graph), make_feeds(graph)
    for seed in range(3):
        gone = choose_units(groups, seed)
        pruned = groups.remove(gone)
        pruned.check()
        assert differs(groups.masked(gone), pruned, feeds) < ROUNDING
    return groups


def free(groups: Groups) -> dict[tuple[str, int], int]:
    """Of every dimension of a stored tensor in how many units it can lose indices."""
    return {(member.constant, member.axis): len(set(member.units.tolist()) - {-1}) for member in groups.members}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("bth,hf->btf", "btf,fo->bto"),
        ("bth,fh->bft", "bft,of->bto"),
        ("...h,hf->...f", "...f,fo"),
        ("...h,hf", "f...,fo->...o"),
        ("bth , hf -> btf", "b...f,fo->b...o"),
        ("abh,hf", "abf,fo"),
    ],
)
def test_two_products(first: str, second: str) -> None:
    """A layer's outputs are whatever letter its equation calls so, however its axes lie."""
    turned: dict[str, Any] = {"w": (9, 6)} if "fh" in first else {"w": (6, 9)}
    last: dict[str, Any] = {"v": (4, 9)} if "of" in second else {"v": (9, 4)}
    middle = {"f...,fo->...o": "Transpose <perm = [2, 0, 1]> (a)"}.get(second, "Identity(a)")
    graph = make(
        f"""(float[batch, 5, 6] x) => (float[batch, 5, 4] y) {{
          a = Einsum <equation = "{first}"> (x, w)
          r = Relu(a)
          m = {middle.replace("(a)", "(r)")}
          y = Einsum <equation = "{second}"> (m, v)
        }}""",
        **turned,
        **last,
    )
    groups = check_units(graph)
    assert free(groups) == {("w", list(turned["w"]).index(9)): 9, ("v", list(last["v"]).index(9)): 9}


def attention(queries: str = "bth,hnd->btnd", activation: str = "Identity") -> Graph:
    return make(
        f"""(float[batch, length, 6] x) => (float[batch, length, 6] y) {{
          qs = Einsum <equation = "{queries}"> (x, wq)
          ks = Einsum <equation = "bth,hnd->btnd"> (x, wk)
          v = Einsum <equation = "bth,hnd->btnd"> (x, wv)
          q = {activation}(qs)
          k = {activation}(ks)
          s = Einsum <equation = "btnd,bsnd->bnts"> (q, k)
          p = Softmax <axis = -1> (s)
          c = Einsum <equation = "bnts,bsnd->btnd"> (p, v)
          y = Einsum <equation = "btnd,ndh->bth"> (c, wo)
        }}""",
        wq=(6, 4, 3),
        wk=(6, 4, 3),
        wv=(6, 4, 5),
        wo=(4, 5, 6),
    )


def test_attention_loses_heads_and_features() -> None:
    groups = check_units(attention())
    assert free(groups) == {
        **{(weight, 1): 4 for weight in ("wq", "wk", "wv")},
        ("wq", 2): 3,
        ("wk", 2): 3,
        ("wv", 2): 5,
        ("wo", 0): 4,
        ("wo", 1): 5,
    }


def test_what_would_not_be_zero_is_not_summed_over() -> None:
    """cos 0 = 1: each feature of a head that went would have added 1 to the scores."""
    groups = check_units(attention(activation="Cos"))
    assert ("wq", 2) not in free(groups)
    assert free(groups)["wq", 1] == 4


@pytest.mark.parametrize(
    ("scores", "sums"),
    [("blhd,bshd->bhls", "bhls,bshd->blhd"), ("b...hd,bshd->bh...s", "bh...s,bshd->b...hd")],
)
def test_heads_behind_einsum_are_called_heads(scores: str, sums: str) -> None:
    graph = make(
        f"""(float[batch, length, 6] x) => (float[batch, length, 6] y) {{
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          q4 = Reshape(q, apart)
          k4 = Reshape(k, apart)
          v4 = Reshape(v, apart)
          s = Einsum <equation = "{scores}"> (q4, k4)
          p = Softmax <axis = -1> (s)
          c = Einsum <equation = "{sums}"> (p, v4)
          f = Reshape(c, joined)
          y = MatMul(f, wo)
        }}""",
        wq=(6, 12),
        wk=(6, 12),
        wv=(6, 12),
        wo=(12, 6),
        apart=[0, 0, 4, 3],
        joined=[0, 0, 12],
    )
    assert [(group.kind, len(group.units), group.width) for group in prune_exactly(graph).groups] == [("head", 4, 3)]


@pytest.mark.parametrize(
    ("equation", "shape"),
    [
        ("bii->bi", "float[batch, 8] y"),  # a diagonal: its indices go from both axes
        ("bij->bj", "float[batch, 8] y"),  # a sum over what is zero where masked
        ("bii->b", "float[batch] y"),
        ("b...->b...", "float[batch, 8, 8] y"),
    ],
)
def test_one_operand(equation: str, shape: str) -> None:
    graph = make(
        f"""(float[batch, 3] x) => ({shape}) {{
          r = MatMul(x, w)
          c = Unsqueeze(r, second)
          m = Mul(c, u)
          y = Einsum <equation = "{equation}"> (m)
        }}""",
        w=(3, 8),
        u=(8, 8),
        second=[1],
    )
    check_units(graph)


def test_single_indices_broadcast() -> None:
    graph = make(
        """(float[batch, 5, 6] x) => (float[batch, 5, 4] y) {
          a = MatMul(x, w)
          b = Einsum <equation = "bth,oth->bth"> (a, scale)
          y = MatMul(b, v)
        }""",
        w=(6, 8),
        scale=(1, 5, 8),
        v=(8, 4),
    )
    (group,) = prune_exactly(graph).groups
    assert {(member.constant, member.axis) for member in group.members} == {("w", 1), ("scale", 2), ("v", 0)}


def test_three_operands() -> None:
    graph = make(
        """(float[batch, 6] x) => (float[batch, 4] y) {
          a = MatMul(x, w)
          b = MatMul(x, u)
          y = Einsum <equation = "bi,bj,ijo->bo"> (a, b, v)
        }""",
        w=(6, 5),
        u=(6, 7),
        v=(5, 7, 4),
    )
    groups = prune_exactly(graph)
    assert [(group.layers, len(group.units)) for group in groups.groups] == [(["a"], 5), (["b"], 7)]


@pytest.mark.parametrize("seed", range(24))
def test_random_equations(seed: int) -> None:
    """Operands are stored or computed, zero where masked or not; what comes out is weighed and summed."""
    generator = np.random.default_rng(seed)
    sizes = dict(zip("abcde", generator.integers(2, 5, 5).tolist(), strict=True))
    terms = ["".join(generator.permutation(list("abcde"))[: generator.integers(1, 4)]) for _ in range(3)]
    used = sorted({*"".join(terms)})
    result = "".join(generator.permutation(used)[: generator.integers(1, len(used) + 1)])
    shapes: dict[str, Any] = {f"w{place}": tuple(sizes[letter] for letter in term) for place, term in enumerate(terms)}
    lines = [
        f"s{place} = Mul(w{place}, x)\n t{place} = {generator.choice(['Tanh', 'Cos', 'Sigmoid', 'Identity'])}(s{place})"
        for place in range(len(terms))
    ]
    names = [f"{generator.choice(['t', 'w'])}{place}" for place in range(len(terms))]
    graph = make(
        f"""(float[1] x) => (float y) {{
          {" ".join(lines)}
          e = Einsum <equation = "{",".join(terms)}->{result}"> ({", ".join(names)})
          m = Mul(e, weights)
          y = ReduceSum <keepdims = 0> (m)
        }}""",
        weights=tuple(sizes[letter] for letter in result),
        **shapes,
    )
    check_units(graph)


def test_axes_under_dots_count_heads_too() -> None:
    graph = make(
        """(float[batch, 6] x) => (float[batch, 5] y) {
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          q4 = Reshape(q, apart)
          k4 = Reshape(k, apart)
          s = Einsum <equation = "...d,...d->..."> (q4, k4)
          f = Reshape(s, joined)
          y = MatMul(f, wo)
        }""",
        wq=(6, 12),
        wk=(6, 12),
        wo=(4, 5),
        apart=[0, 1, 4, 1, 3],
        joined=[0, 4],
    )
    assert [(group.kind, len(group.units), group.width) for group in prune_exactly(graph).groups] == [("head", 4, 3)]
