"""The rules of attention: heads go with all that is theirs, exactly, whatever way they are laid out and shared."""

from typing import Any

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import prune_exactly
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.session import Array


def flat(
    q_heads: int, kv_heads: int, size: int = 4, values: int = 4, more: str = "", mask: Array | None = None
) -> Graph:
    """Attention over flat tensors between projections, all of 7 positions; `more` are attributes."""
    inputs = "" if mask is None else ", mask"
    masks: dict[str, Any] = {} if mask is None else {"mask": mask}
    return make(
        f"""(float[batch, 7, 6] x) => (float[batch, 7, 5] y) {{
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          a = Attention <q_num_heads = {q_heads}, kv_num_heads = {kv_heads}{more}> (q, k, v{inputs})
          y = MatMul(a, wo)
        }}""",
        opset=23,
        wq=(6, q_heads * size),
        wk=(6, kv_heads * size),
        wv=(6, kv_heads * values),
        wo=(q_heads * values, 5),
        **masks,
    )


def shapes_of(groups: Groups) -> list[tuple[str, int, int]]:
    return [(group.kind, len(group.units), group.width) for group in groups.groups]


@pytest.mark.parametrize(
    ("q_heads", "kv_heads", "expected"),
    [
        (6, 6, [("head", 6, 4)]),
        (6, 3, [("head", 3, 8)]),  # each pair of query heads with its keys and values
        (6, 2, [("head", 3, 8)]),  # the same one of three query heads of both groups
        (6, 1, [("head", 6, 4)]),
    ],
)
def test_heads_go_with_what_they_share(q_heads: int, kv_heads: int, expected: list[tuple[str, int, int]]) -> None:
    assert shapes_of(prune_exactly(flat(q_heads, kv_heads))) == expected


@pytest.mark.parametrize("more", ["", ", scale = 0.3", ", softcap = 2.0", ", is_causal = 1"])
def test_attributes_that_change_scores_stay_true(more: str) -> None:
    assert shapes_of(prune_exactly(flat(4, 4, more=more))) == [("head", 4, 4)]


@pytest.mark.parametrize("kind", [np.float32, np.bool_])
def test_a_mask_of_its_own_for_each_head_goes_with_the_head(kind: type) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (1, 4, 7, 7)) | np.eye(7, dtype=np.int64)
    (group,) = prune_exactly(flat(4, 4, mask=mask.astype(kind))).groups
    assert ("mask", 1) in {(member.constant, member.axis) for member in group.members}


def test_values_have_a_size_of_their_own() -> None:
    (group,) = prune_exactly(flat(4, 4, size=3, values=5)).groups
    assert {member.constant: (member.units == group.units[0]).sum() for member in group.members} == {
        "wq": 3,
        "wk": 3,
        "wv": 5,
        "wo": 5,
    }


@pytest.mark.parametrize("scale", ["", ", scale = 0.3"])
def test_of_a_single_head_features_go(scale: str) -> None:
    """Scores are divided by the root of how many features there were before."""
    assert shapes_of(prune_exactly(flat(1, 1, size=8, values=6, more=scale))) == [("channel", 8, 1), ("channel", 6, 1)]


def test_heads_apart_are_told_by_their_axis() -> None:
    graph = make(
        """(float[batch, length, 6] x) => (float[batch, length, 5] y) {
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          q4 = Reshape(q, apart)
          k4 = Reshape(k, shared)
          v4 = Reshape(v, shared)
          qt = Transpose <perm = [0, 2, 1, 3]> (q4)
          kt = Transpose <perm = [0, 2, 1, 3]> (k4)
          vt = Transpose <perm = [0, 2, 1, 3]> (v4)
          a, ks, vs, s = Attention(qt, kt, vt)
          at = Transpose <perm = [0, 2, 1, 3]> (a)
          af = Reshape(at, joined)
          y = MatMul(af, wo)
        }""",
        opset=23,
        wq=(6, 24),
        wk=(6, 12),
        wv=(6, 12),
        wo=(24, 5),
        apart=[0, 0, 6, 4],
        shared=[0, 0, 3, 4],
        joined=[0, 0, 24],
    )
    assert shapes_of(prune_exactly(graph)) == [("head", 3, 8)]


def test_keys_that_come_in_stay_and_query_heads_that_share_them_go() -> None:
    graph = make(
        """(float[batch, length, 6] x, float[batch, 2, before, 4] pk, float[batch, 2, before, 4] pv)
           => (float[batch, length, 5] y, float[batch, 2, all, 4] nk, float[batch, 2, all, 4] nv) {
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          a, nk, nv = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v, , pk, pv)
          y = MatMul(a, wo)
        }""",
        opset=23,
        wq=(6, 16),
        wk=(6, 8),
        wv=(6, 8),
        wo=(16, 5),
    )
    groups = prune_exactly(graph)
    assert [(group.kind, len(group.units), group.layers) for group in groups.groups] == [("head", 2, ["q"])]


def test_a_query_head_without_its_keys_and_values_is_not_zero() -> None:
    """Scores of zero give the mean of the values, which a sum over heads would miss: features go instead."""
    graph = make(
        """(float[batch, length, 6] x) => (float[batch, length, 1] y) {
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          a = Attention <q_num_heads = 6, kv_num_heads = 1> (q, k, v)
          y = ReduceSum(a, last)
        }""",
        opset=23,
        wq=(6, 24),
        wk=(6, 4),
        wv=(6, 4),
        last=[2],
    )
    assert shapes_of(prune_exactly(graph)) == [("channel", 4, 6), ("channel", 4, 1)]


def rotary(heads: int, size: int, more: str = "", pairs: int | None = None) -> Graph:
    half = (size if pairs is None else 2 * pairs) // 2
    return make(
        f"""(float[batch, length, 6] x, int64[batch, length] places) => (float[batch, length, 5] y) {{
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          qr = RotaryEmbedding <num_heads = {heads}{more}> (q, cos, sin, places)
          kr = RotaryEmbedding <num_heads = {heads}{more}> (k, cos, sin, places)
          a = Attention <q_num_heads = {heads}, kv_num_heads = {heads}> (qr, kr, v)
          y = MatMul(a, wo)
        }}""",
        opset=23,
        wq=(6, heads * size),
        wk=(6, heads * size),
        wv=(6, heads * size),
        wo=(heads * size, 5),
        cos=np.cos(np.outer(np.arange(50), 0.7 ** np.arange(half))).astype(np.float32),
        sin=np.sin(np.outer(np.arange(50), 0.7 ** np.arange(half))).astype(np.float32),
    )


@pytest.mark.parametrize("more", ["", ", interleaved = 1"])
def test_turned_heads_go(more: str) -> None:
    assert shapes_of(prune_exactly(rotary(4, 8, more))) == [("head", 4, 8)]


@pytest.mark.parametrize("more", ["", ", interleaved = 1"])
def test_of_a_single_turned_head_pairs_of_features_go(more: str) -> None:
    groups = prune_exactly(rotary(1, 16, more))
    assert shapes_of(groups) == [("channel", 8, 2), ("channel", 16, 1)]
    assert {member.constant for member in groups.groups[0].members} == {"wq", "wk", "cos", "sin"}


def test_features_that_are_not_turned_go_one_by_one() -> None:
    groups = prune_exactly(rotary(1, 16, ", rotary_embedding_dim = 8", pairs=4))
    assert sorted(shapes_of(groups)) == [("channel", 4, 2), ("channel", 8, 1), ("channel", 16, 1)]


def test_computed_queries_and_keys_keep_their_features_where_neither_would_be_zero() -> None:
    """A sigmoid of zero is not zero: one feature more would change the scores."""
    graph = make(
        """(float[batch, length, 6] x) => (float[batch, length, 5] y) {
          q0 = MatMul(x, wq)
          k0 = MatMul(x, wk)
          v = MatMul(x, wv)
          q = Sigmoid(q0)
          k = Sigmoid(k0)
          a = Attention <q_num_heads = 1, kv_num_heads = 1> (q, k, v)
          y = MatMul(a, wo)
        }""",
        opset=23,
        wq=(6, 8),
        wk=(6, 8),
        wv=(6, 8),
        wo=(8, 5),
    )
    groups = prune_exactly(graph)
    assert [group.layers for group in groups.groups] == [["v"]]
    (layer,) = graph.select(["q0"])
    assert "neither would be zero" in str(find_groups(graph).obstacle(layer))
