"""The rules of Concat and Pad, and of Split, Slice and Gather: indices go their own ways and find their new places."""

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups


def between(nodes: str, out: int, **constants: object) -> Graph:
    """`nodes` make `b` [N, out, 6, 6] of `a` [N, 8, 6, 6]."""
    return make(
        f"""(float[N, 3, 6, 6] x) => (float[N, 2, P, Q] y) {{
          a = Conv(x, first)
          {nodes}
          c = Relu(b)
          y = Conv(c, last)
        }}""",
        first=(8, 3, 1, 1),
        last=(2, out, 1, 1),
        **constants,
    )


def test_concat_each_part_goes_by_itself() -> None:
    graph = between("d = Conv(a, w) b = Concat <axis = -3> (d, a, d)", 18, w=(5, 8, 1, 1))
    groups = prune_exactly(graph)
    assert ties(groups) == ["5: last[1] w[0]", "8: first[0] last[1] w[1]"]
    assert {group.width for group in groups.groups} == {1}


def test_concat_along_positions_ties_channels() -> None:
    graph = between("d = Conv(a, w) b = Concat <axis = 2> (a, d)", 8, w=(8, 8, 1, 1))
    assert ties(prune_exactly(graph)) == ["8: first[0] last[1] w[0] w[1]"]


def test_concat_with_the_models_input_keeps_that() -> None:
    assert ties(prune_exactly(between("b = Concat <axis = 1> (x, a)", 11))) == ["8: first[0] last[1]"]


@pytest.mark.parametrize(
    ("node", "sizes"),
    [("p, q = Split <axis = 1> (a, parts)", (3, 5)), ("p, q = Split <axis = -3, num_outputs = 2> (a)", (4, 4))],
)
def test_split_parts_go_by_themselves(node: str, sizes: tuple[int, int]) -> None:
    graph = between(f"{node} r = Sigmoid(p) b = Concat <axis = 1> (q, r)", 8, parts=[3, 5])
    assert ties(prune_exactly(graph)) == sorted(f"{size}: first[0] last[1]" for size in sizes)


def test_split_parts_that_are_multiplied_go_together() -> None:
    graph = between("p, q = Split <axis = 1, num_outputs = 2> (a) s = Sigmoid(q) b = Mul(p, s)", 4)
    assert ties(prune_exactly(graph)) == ["4: first[0] last[1]"]


def test_split_into_uneven_parts() -> None:
    graph = between("p, q, r = Split <axis = 1, num_outputs = 3> (a) b = Concat <axis = 1> (r, p)", 5)
    assert ties(prune_exactly(graph)) == ["2: first[0] last[1]", "3: first[0]", "3: first[0] last[1]"]


@pytest.mark.parametrize(
    ("start", "end", "step", "left"),
    [(2, 6, 1, 4), (-3, 100, 1, 3), (0, 8, 2, 4), (7, -9, -1, 8), (-1, -(2**62), -3, 3), (5, 1, -2, 2)],
)
def test_slice(start: int, end: int, step: int, left: int) -> None:
    nodes = "b = Slice(a, start, end, channel, step)"
    groups = prune_exactly(between(nodes, left, start=[start], end=[end], channel=[1], step=[step]), seeds=range(3))
    assert f"{left}: first[0] last[1]" in ties(groups)


def test_what_no_slice_takes_goes_too() -> None:
    graph = between("b = Slice(a, start, end, channel)", 3, start=[2], end=[5], channel=[1])
    assert ties(prune_exactly(graph)) == ["3: first[0] last[1]", "5: first[0]"]


def test_slice_of_several_axes() -> None:
    graph = between("b = Slice(a, start, end, axes, step)", 5, start=[1, 0, -1], end=[6, 5, 0], axes=[1, 3, 2],
                    step=[1, 1, -1])  # fmt: skip
    assert ties(prune_exactly(graph, seeds=range(4))) == ["3: first[0]", "5: first[0] last[1]"]


def test_one_index_of_a_slice_stays_while_others_go() -> None:
    """It is a group of one, of which one must stay."""
    groups = prune_exactly(
        between("d = Slice(a, start, end, channel) b = Mul(a, d)", 8, start=[3], end=[4], channel=[1])
    )
    assert ties(groups) == ["1: first[0] last[1]", "7: first[0] last[1]"]


def test_slice_of_a_free_axis_leaves_channels_alone() -> None:
    graph = make(
        """(float[N, L, 3] x) => (float[N, P, 2] y) {
          a = MatMul(x, first)
          s = Shape <start = 1, end = 2> (a)
          b = Slice(a, one, s, one)
          c = Slice(b, zero, all, one)
          y = MatMul(c, last)
        }""",
        first=(3, 8),
        last=(8, 2),
        zero=[0],
        one=[1],
        all=[2**62],
    )
    assert ties(prune_exactly(graph)) == ["8: first[1] last[0]"]


def test_a_slice_at_a_computed_place_keeps_its_axis() -> None:
    graph = make(
        """(float[N, 4] x, int64[1] place) => (float[N, 2] y) {
          a = MatMul(x, first)
          b = Slice(a, zero, place, one)
          s = ReduceSum <keepdims = 1> (b, one)
          y = MatMul(s, last)
        }""",
        first=(4, 8),
        last=(1, 2),
        zero=[0],
        one=[1],
    )
    assert "depends on the input" in obstacles(graph)["first"]


@pytest.mark.parametrize("indices", [[5, 1, 2], [0, 0, 7, 3], [-1, -8, 2]])
def test_gather(indices: list[int]) -> None:
    groups = prune_exactly(between("b = Gather <axis = 1> (a, indices)", len(indices), indices=indices))
    gathered = {index % 8 for index in indices}
    assert sum(len(group.units) for group in groups.groups) == 8
    assert sum(len(group.units) for group in groups.groups if len(group.members) > 1) == len(gathered)


def test_gather_of_one_keeps_it() -> None:
    nodes = "d = Gather <axis = 1> (a, three) e = Unsqueeze(d, one) b = Mul(a, e)"
    groups = prune_exactly(between(nodes, 8, three=np.array(3), one=[1]))
    assert ties(groups) == ["7: first[0] last[1]"]


def test_an_embedding_loses_features_and_no_words() -> None:
    graph = make(
        "(int64[N, L] x) => (float[N, L, 2] y) { a = Gather(table, x) y = MatMul(a, last) }",
        table=(10, 6),
        last=(6, 2),
    )
    assert ties(prune_exactly(graph)) == ["6: last[0] table[1]"]


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_pad_channels_are_tied_to_what_they_meet(value: float) -> None:
    """As a residual network's shortcut pads: what meets them in a sum goes with them, unless they are not zero."""
    nodes = "p = Pad(a, pads, value) d = Conv(a, w) b = Add(p, d)"
    graph = between(nodes, 12, w=(12, 8, 1, 1), pads=[0, 1, 0, 0, 0, 3, 0, 0], value=np.float32(value))
    groups = prune_exactly(graph)
    assert ties(groups) == ["4: last[1] w[0]", "8: first[0] last[1] w[0] w[1]"]


def test_pad_of_named_axes() -> None:
    graph = between("p = Pad(a, pads, , axes) d = Conv(a, w) b = Add(p, d)", 11, w=(11, 8, 1, 1), pads=[0, 2, 0, 1],
                    axes=[2, -3])  # fmt: skip
    assert ties(prune_exactly(graph)) == ["3: last[1] w[0]", "8: first[0] last[1] w[0] w[1]"]


def test_pad_by_reflection_or_cropping_keeps_channels() -> None:
    assert "pads along it" in obstacles(
        between('b = Pad <mode = "reflect"> (a, pads)', 10, pads=[0, 1, 0, 0, 0, 1, 0, 0])
    )["first"]  # fmt: skip
    assert "pads along it" in obstacles(between("b = Pad(a, pads)", 7, pads=[0, -1, 0, 0, 0, 0, 0, 0]))["first"]


def test_pad_of_positions_leaves_channels_alone() -> None:
    graph = between('b = Pad <mode = "edge"> (a, pads)', 8, pads=[0, 0, 1, 1, 0, 0, 1, 1])
    assert ties(prune_exactly(graph)) == ["8: first[0] last[1]"]


def test_nothing_is_left_half() -> None:
    """Parts of a split that become the whole of something each keep one."""
    graph = between("p, q = Split <axis = 1> (a, parts) d = Conv(p, u) e = Conv(q, v) b = Add(d, e)", 4, parts=[2, 6],
                    u=(4, 2, 1, 1), v=(4, 6, 1, 1))  # fmt: skip
    assert [len(group.units) for group in find_groups(graph).groups if group.width == 1] == [2, 6, 4]
