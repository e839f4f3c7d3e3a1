"""The rules of transposes and reshapes: what axes are taken apart into, and what they are put together of."""

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import ROUNDING, choose, differs, obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups
from worker.engine.graph.channels.regrouping import regroup


def between(nodes: str, out: int = 12, **constants: object) -> Graph:
    """`nodes` make `b` [N, out, ., .] of `a` [N, 12, 4, 4]."""
    return make(
        f"""(float[N, 3, 4, 4] x) => (float[N, 2, P, Q] y) {{
          a = Conv(x, first, bias)
          {nodes}
          c = Relu(b)
          y = Conv(c, last)
        }}""",
        first=(12, 3, 1, 1),
        bias=(12,),
        last=(2, out, 1, 1),
        **constants,
    )


@pytest.mark.parametrize(
    ("before", "after", "factors"),
    [
        ((2, 12, 4, 4), (2, 3, 4, 4, 4), (2, 3, 4, 4, 4)),
        ((2, 12, 4, 4), (2, 192), (2, 12, 4, 4)),
        ((6, 8), (2, 3, 8), (2, 3, 8)),
        ((2, 1, 8), (2, 8, 1, 1), (2, 8)),
        ((4, 6), (2, 12), (2, 2, 6)),
        ((2, 3), (6,), (2, 3)),
        ((1,), (1, 1), ()),
    ],
)
def test_factors(before: tuple[int, ...], after: tuple[int, ...], factors: tuple[int, ...]) -> None:
    found = regroup(before, after)
    assert found is not None
    assert found.sizes == factors
    for axes, shape in ((found.before, before), (found.after, after)):
        assert tuple(int(np.prod([found.sizes[factor] for factor in own])) for own in axes) == shape


@pytest.mark.parametrize(("before", "after"), [((4, 6), (3, 8)), ((4, 6), (5, 5)), ((0, 2), (2, 0))])
def test_no_factors(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert regroup(before, after) is None


def test_a_channel_shuffle_loses_whole_groups_or_the_same_of_each() -> None:
    nodes = "r = Reshape(a, apart) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) b = Reshape(t, together)"
    graph = between(nodes, apart=[0, 3, 4, 4, 4], together=[-1, 12, 4, 4])
    assert ties(prune_exactly(graph)) == ["4: bias[0] first[0] last[1]"]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    graph = between(f'd = DepthToSpace <blocksize = 2, mode = "{mode}"> (a) b = SpaceToDepth <blocksize = 2> (d)')
    assert ties(prune_exactly(graph)) == ["3: bias[0] first[0] last[1]"]


def test_pixels_shuffled_by_hand() -> None:
    nodes = "r = Reshape(a, apart) t = Transpose <perm = [0, 1, 4, 2, 5, 3]> (r) b = Reshape(t, together)"
    graph = between(nodes, 3, apart=[0, 3, 2, 2, 4, 4], together=[0, 3, 8, 8])
    assert ties(prune_exactly(graph)) == ["3: bias[0] first[0] last[1]"]


def test_positions_that_become_channels_stay() -> None:
    graph = between("t = Transpose <perm = [0, 2, 3, 1]> (a) d = SpaceToDepth <blocksize = 2> (t) "
                    "b = Transpose <perm = [0, 3, 1, 2]> (d)", 6)  # fmt: skip
    assert "makes channels" in obstacles(graph)["first"]


@pytest.mark.parametrize(
    "nodes", ["f = Flatten(a)", "f = Reshape(a, rows)", "m = GlobalAveragePool(a) f = Squeeze(m, two)"]
)
def test_flattened(nodes: str) -> None:
    size = 12 if "Squeeze" in nodes else 192
    graph = make(
        f"(float[N, 3, 4, 4] x) => (float[N, 2] y) {{ a = Conv(x, first) {nodes} y = MatMul(f, last) }}",
        first=(12, 3, 1, 1),
        last=(size, 2),
        rows=[0, -1],
        two=[2, 3],
    )
    groups = prune_exactly(graph)
    assert ties(groups) == ["12: first[0] last[0]"]
    assert {member.constant: len(member.units) for member in groups.members} == {"first": 12, "last": size}


def test_a_shape_that_mixes_axes_blocks() -> None:
    graph = between("r = Reshape(a, mixed) s = Relu(r) b = Reshape(s, back)", mixed=[0, 16, 3, 4], back=[0, 12, 4, 4])
    assert "not known" in obstacles(graph)["first"]


def test_targets_computed_from_shapes() -> None:
    """Two free dimensions and arithmetic on the width: half of it, as the split says."""
    graph = make(
        """(float[N, L, 3] x) => (float[N, L, 2] y) {
          a = MatMul(x, first)
          s = Shape(a)
          n = Gather(s, zero)
          l = Gather(s, one)
          d = Gather(s, two)
          h = Div(d, parts)
          t = Concat <axis = 0> (n, l, parts, h)
          r = Reshape(a, t)
          u = Relu(r)
          w = Mul(h, parts)
          m = Concat <axis = 0> (n, l, w)
          b = Reshape(u, m)
          y = MatMul(b, last)
        }""",
        first=(3, 8),
        last=(8, 2),
        zero=[0],
        one=[1],
        two=[2],
        parts=[2],
    )
    assert ties(prune_exactly(graph)) == ["4: first[1] last[0]"]


def test_a_width_that_is_not_free_is_said_by_the_split() -> None:
    """[N * L, D] and back: rows are free in two dimensions, features go."""
    graph = make(
        """(float[N, L, 3] x) => (float[N, L, 2] y) {
          a = MatMul(x, first)
          r = Reshape(a, rows)
          g = Gemm <transB = 1> (r, inner, bias)
          s = Shape <end = 2> (a)
          t = Concat <axis = 0> (s, width)
          b = Reshape(g, t)
          y = MatMul(b, last)
        }""",
        first=(3, 8),
        rows=[-1, 8],
        inner=(6, 8),
        bias=(6,),
        width=[6],
        last=(6, 2),
    )
    assert ties(prune_exactly(graph)) == ["6: bias[0] inner[0] last[0]", "8: first[1] inner[1]"]


@pytest.mark.parametrize("axes", ["", "one"])
def test_a_squeeze_does_not_take_the_last_channel(axes: str) -> None:
    """Without axes it would squeeze the only channel left, too."""
    graph = make(
        f"""(float[3, 6] x) => (float[3, 2] y) {{
          a = MatMul(x, first)
          u = Unsqueeze(a, one)
          b = Squeeze(u{", " + axes if axes else ""})
          y = MatMul(b, last)
        }}""",
        first=(6, 2),
        last=(2, 2),
        one=[1],
    )
    assert ties(prune_exactly(graph)) == ["2: first[1] last[0]"]


def test_heads_go_before_their_features() -> None:
    text = """(float[N, L, 6] x) => (float[N, L, 2] y) {{
      q = MatMul(x, wq)
      k = MatMul(x, wk)
      v = MatMul(x, wv)
      rq = Reshape(q, apart)
      rk = Reshape(k, apart)
      rv = Reshape(v, apart)
      hq = Transpose <perm = [0, 2, 1, 3]> (rq)
      hk = Transpose <perm = [0, 2, 3, 1]> (rk)
      hv = Transpose <perm = [0, 2, 1, 3]> (rv)
      s = MatMul(hq, hk)
      p = Softmax(s)
      m = MatMul(p, hv)
      t = Transpose <perm = [0, 2, 1, 3]> (m)
      b = Reshape(t, together)
      y = MatMul(b, last)
    }}"""
    graph = make(text.format(), wq=(6, 12), wk=(6, 12), wv=(6, 12), last=(12, 2), apart=[0, -1, 3, 4],
                 together=[0, -1, 12])  # fmt: skip
    groups = prune_exactly(graph)
    assert ties(groups) == ["3: last[0] wk[1] wq[1] wv[1]"]
    (group,) = groups.groups
    assert (group.kind, group.width) == ("head", 4)


def test_a_target_that_only_suits_one_sample_blocks() -> None:
    """What it does to several is another thing, and what was found out of that would be wrong for one."""
    graph = make(
        "(float[N, 3, 4, 4] x) => (float[N, 2, 16] y) { a = Conv(x, first) r = Reshape(a, one) y = Conv(r, last) }",
        first=(12, 3, 1, 1),
        one=[1, 12, -1],
        last=(2, 12, 1),
    )
    assert "not known" in obstacles(graph)["first"]


def test_a_free_size_is_not_taken_for_the_only_one_that_was_tried() -> None:
    """Of L, 1 and 5 suit the sum: targets must serve both."""
    graph = make(
        """(float[N, L] x) => (float[N, L, 2] y, float[N, 5] z) {
          z = Add(x, five)
          u = Unsqueeze(x, two)
          a = MatMul(u, first)
          b = Relu(a)
          s = Shape(x)
          t = Concat <axis = 0> (s, six)
          r = Reshape(b, t)
          y = MatMul(r, last)
        }""",
        first=(1, 6),
        five=np.ones(5, np.float32),
        two=[2],
        six=[6],
        last=(6, 2),
    )
    groups = find_groups(graph)
    assert ties(groups) == ["6: first[1] last[0]"]
    gone = choose(groups)
    feeds = [{"x": np.ones((3, length), np.float32)} for length in (1, 5)]
    assert differs(groups.masked(gone), groups.remove(gone), feeds) < ROUNDING
