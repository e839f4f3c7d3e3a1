"""The rules of If, Loop and Scan: channels go through bodies exactly, and stay where their shapes are not plain."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.engine.graph.channels.comparing import ROUNDING, Feed, choose, differs, make_feeds, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.ingest import ingest_model

BRANCHES = """(float[batch, 5] x, bool which) => (float[batch, 3] y) {
  a = MatMul(x, w)
  h = If (which) <
    then_branch = t () => (float[batch, 8] p) { s = MatMul(a, w1)  r = Relu(s)  p = Add(r, b1) },
    else_branch = e () => (float[batch, 8] q) { s = MatMul(x, w2)  r = Tanh(s)  q = MatMul(r, w3) }
  >
  y = MatMul(h, v)
}"""
BODIES: dict[str, Any] = {"w": (5, 6), "w1": (6, 8), "b1": (8,), "w2": (5, 4), "w3": (4, 8), "v": (8, 3)}

TIED = ["4: w2[1] w3[0]", "6: w1[0] w[1]", "8: b1[0] v[0] w1[1] w3[1]"]


def check_feeds(graph: Graph, feeds: list[Feed]) -> Groups:
    """The groups of a graph, some units of which are removed exactly on the given feeds."""
    groups = find_groups(graph)
    for seed in range(2):
        gone = choose(groups, seed)
        lost = groups.remove(gone)
        lost.check()
        assert differs(groups.masked(gone), lost, feeds) < ROUNDING
    return groups


def both_ways(graph: Graph) -> list[Feed]:
    return [{**feed, "which": np.array(which)} for feed in make_feeds(graph) for which in (False, True)]


def test_branches_lose_the_same_channels() -> None:
    """Also those of a layer before them that only one branch reads. Both use a name for tensors of their own."""
    graph = make(BRANCHES, **BODIES)
    assert ties(check_feeds(graph, both_ways(graph))) == TIED


def test_weights_that_lie_in_a_branch() -> None:
    graph = make(BRANCHES, **BODIES)
    branch = next(node for node in graph.nodes() if node.op_type == "If").attributes["then_branch"].as_graph()
    for name in ("w1", "b1"):
        moved = graph.model.graph.initializers.pop(name)
        branch.register_initializer(moved)
    assert ties(check_feeds(graph, both_ways(graph))) == TIED


def test_branches_within_branches() -> None:
    graph = make(
        """(float[batch, 5] x, bool which) => (float[batch, 3] y) {
          a = MatMul(x, w)
          n = Not(which)
          h = If (which) <
            then_branch = t () => (float[batch, 6] p) {
              p = If (n) <
                then_branch = tt () => (float[batch, 6] u) { u = Relu(a) },
                else_branch = te () => (float[batch, 6] u2) { g = MatMul(x, w2)  u2 = Mul(g, a) }
              >
            },
            else_branch = e () => (float[batch, 6] q) { q = Identity(a) }
          >
          y = MatMul(h, v)
        }""",
        w=(5, 6), w2=(5, 6), v=(6, 3),
    )  # fmt: skip
    assert ties(check_feeds(graph, both_ways(graph))) == ["6: v[0] w2[1] w[1]"]


@pytest.mark.parametrize(("other", "is_zero"), [("Tanh(a)", True), ("Sigmoid(a)", False)])
def test_a_mean_behind_branches_needs_zeros_of_both(other: str, is_zero: bool) -> None:
    graph = make(
        f"""(float[batch, 5] x, bool which) => (float[batch, 1] y) {{
          a = MatMul(x, w)
          h = If (which) <
            then_branch = t () => (float[batch, 6] p) {{ p = Relu(a) }},
            else_branch = e () => (float[batch, 6] q) {{ q = {other} }}
          >
          y = ReduceMean(h, last)
        }}""",
        w=(5, 6),
        last=[-1],
    )
    assert ties(check_feeds(graph, both_ways(graph))) == (["6: w[1]"] if is_zero else [])


def test_branches_of_different_shapes_keep_their_channels() -> None:
    graph = make(
        """(float[batch, 5] x, bool which) => (float[b, c] y) {
          a = MatMul(x, w)
          y0 = If (which) <
            then_branch = t () => (float[p0, p1] p) { p = MatMul(a, w1) },
            else_branch = e () => (float[q0, q1] q) { q = Identity(a) }
          >
          y = ReduceSum(y0, last)
        }""",
        w=(5, 6),
        w1=(6, 8),
        last=[-1],
    )
    groups = find_groups(graph)
    assert not groups.groups
    assert all("different shapes" in (groups.obstacle(layer) or "") for layer in graph.layers())


LOOP = """(float[batch, 5] x, int64 trips) => (float[batch, 3] y, float[n, batch, 2] z) {
  h0 = MatMul(x, w)
  h, rows = Loop (trips, , h0) <
    body = b (int64 i, bool go, float[batch, 6] s) => (bool on, float[batch, 6] t, float[batch, 6] row) {
      on = Identity(go)
      a = MatMul(s, r)
      c = MatMul(x, k)
      d = Add(a, c)
      t = Sigmoid(d)
      row = Mul(t, g)
    }
  >
  y = MatMul(h, v)
  z = MatMul(rows, u)
}"""
CARRIED: dict[str, Any] = {"w": (5, 6), "r": (6, 6), "k": (5, 6), "g": (6,), "v": (6, 3), "u": (6, 2)}


def test_what_a_loop_carries() -> None:
    """How often it runs is not known: what it stacks is kept, and what it carries with it where the two are one."""
    graph = make(LOOP, **CARRIED)
    feeds = [{**feed, "trips": np.array(trips)} for feed in make_feeds(graph) for trips in (0, 1, 4)]
    assert ties(check_feeds(graph, feeds)) == []
    graph = make(LOOP.replace("row = Mul(t, g)", "m = MatMul(t, g2)  row = Tanh(m)"), **CARRIED, g2=(6, 6))
    assert ties(check_feeds(graph, feeds)) == ["6: g2[0] k[1] r[0] r[1] v[0] w[1]"]


@pytest.mark.parametrize("steps", ["7", "steps"])
def test_a_loop_over_the_length_of_the_input(steps: str) -> None:
    """What it stacks loses channels too: there are as many rows as the input has."""
    text = LOOP.replace("float[batch, 5] x, int64 trips", f"float[batch, 5] x, float[batch, {steps}] like")
    counted = text.replace("h0 =", "trips0 = Shape <start = 1> (like)  trips = Squeeze(trips0)  h0 =")
    graph = make(counted, **CARRIED)
    assert ties(prune_exactly(graph)) == ["6: g[0] k[1] r[0] r[1] u[0] v[0] w[1]"]


@pytest.mark.parametrize(("first", "is_zero"), [("Tanh(a)", True), ("Sigmoid(a)", False)])
def test_a_mean_behind_a_loop_needs_zeros_from_the_start(first: str, is_zero: bool) -> None:
    """It may not run at all."""
    graph = make(
        f"""(float[batch, 5] x, int64 trips) => (float[batch, 1] y) {{
          a = MatMul(x, w)
          h0 = {first}
          h = Loop (trips, , h0) <
            body = b (int64 i, bool go, float[batch, 6] s) => (bool on, float[batch, 6] t) {{
              on = Identity(go)
              t = MatMul(s, r)
            }}
          >
          y = ReduceMean(h, last)
        }}""",
        w=(5, 6),
        r=(6, 6),
        last=[-1],
    )
    feeds = [{**feed, "trips": np.array(trips)} for feed in make_feeds(graph) for trips in (0, 2)]
    assert ties(check_feeds(graph, feeds)) == (["6: r[0] r[1] w[1]"] if is_zero else [])


def test_a_state_that_grows_keeps_its_channels() -> None:
    graph = make(
        """(float[batch, 5] x) => (float[batch, 1] y) {
          h0 = MatMul(x, w)
          h = Loop (three, , h0) <
            body = b (int64 i, bool go, float[batch, m] s) => (bool on, float[batch, m2] t) {
              on = Identity(go)
              t = Concat <axis = 1> (s, s)
            }
          >
          y = ReduceSum(h, last)
        }""",
        w=(5, 6), three=np.array(3), last=[-1],
    )  # fmt: skip
    groups = find_groups(graph)
    assert not groups.groups
    assert "shape changes" in (groups.obstacle(graph.layers()[0]) or "")


SCAN = """(float[batch, 9, 5] x) => (float[batch, 3] y, float[p, q, r] z) {{
  e = MatMul(x, f)
  h0 = MatMul(x0, w)
  n = Shape <start = 0, end = 1> (x)
  d = Concat <axis = 0> (n, six)
  first = Expand(h0, d)
  h, rows = Scan (first, e) <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [{axis}],
    scan_input_directions = [{backwards}],
    body = b (float[batch, 6] s, float[batch, 7] i) => (float[batch, 6] t, float[batch, 6] o) {{
      a = MatMul(s, r)
      c = MatMul(i, k)
      sum = Add(a, c)
      t = Tanh(sum)
      o = Mul(t, g)
    }}
  >
  y = MatMul(h, v)
  z = MatMul({rows}, u)
}}"""


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_a_scan_along_any_axis(axis: int, backwards: int) -> None:
    graph = make(
        SCAN.format(axis=axis, backwards=backwards, rows="rows"),
        f=(5, 7), x0=(1, 4), w=(4, 6), six=[6], r=(6, 6), k=(7, 6), g=(6,), v=(6, 3), u=(6, 2),
    )  # fmt: skip
    assert ties(prune_exactly(graph)) == ["6: g[0] k[1] r[0] r[1] u[0] v[0] w[1]", "7: f[1] k[0]"]


def test_what_a_scan_goes_along_stays() -> None:
    """Though a layer makes it: it would go on fewer times."""
    graph = make(
        """(float[batch, 6, 5] x) => (float[batch, 6] y) {
          e = MatMul(x, f)
          a = ReduceMean <keepdims = 0> (x, last)
          y = Scan (a, e) <num_scan_inputs = 1, scan_input_axes = [2],
            body = b (float[batch, 6] s, float[batch, 6] i) => (float[batch, 6] t) { m = Add(s, i)  t = Tanh(m) }
          >
        }""",
        f=(5, 9),
        last=[-1],
    )
    groups = find_groups(graph)
    assert not groups.groups
    assert "goes along" in (groups.obstacle(graph.layers()[0]) or "")


def test_a_loop_within_a_scan() -> None:
    """onnx's inference loses the shapes of what a Loop carries, and ONNX Runtime needs those that a Scan gives."""
    graph = make(
        """(float[batch, 9, 5] x) => (float[batch, 3] y, float[p, q, r] z) {
          h0 = ReduceMean <keepdims = 0> (x, one)
          first = MatMul(h0, w)
          h, rows = Scan (first, x) <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
            body = b (float[batch, 6] s, float[batch, 5] i) => (float[batch, 6] t, float[batch, 6] o) {
              a = MatMul(i, k)
              c = Add(s, a)
              t = Loop (two, , c) <
                body = d (int64 n, bool go, float[batch, 6] e) => (bool on, float[batch, 6] f) {
                  on = Identity(go)
                  g = MatMul(e, r)
                  f = Tanh(g)
                }
              >
              o = Relu(t)
            }
          >
          y = MatMul(h, v)
          z = MatMul(rows, u)
        }""",
        one=[1], two=np.array(2), w=(5, 6), k=(5, 6), r=(6, 6), v=(6, 3), u=(6, 2),
    )  # fmt: skip
    assert ties(prune_exactly(graph)) == ["6: k[1] r[0] r[1] u[0] v[0] w[1]"]


def test_an_unknown_operator_keeps_what_its_body_reads() -> None:
    """SequenceMap has no rule: the layer that its body captures stays, and so do the weights inside."""
    graph = make(
        """(float[batch, 5] x) => (float[batch, 3] y) {
          a = MatMul(x, w)
          b = MatMul(x, w2)
          parts = SequenceConstruct(x, x)
          sums = SequenceMap (parts) <body = m (float[batch, 5] part) => (float[batch, 6] c) {
            d = MatMul(part, k)
            c = Add(d, a)
          }>
          c0 = ConcatFromSequence <axis = 1> (sums)
          e = MatMul(c0, v)
          f = MatMul(b, v2)
          y = Add(e, f)
        }""",
        w=(5, 6), w2=(5, 4), k=(5, 6), v=(12, 3), v2=(4, 3),
    )  # fmt: skip
    assert ties(prune_exactly(graph)) == ["4: v2[0] w2[1]"]


def test_a_model_that_is_one_branch(shared: Path) -> None:
    """A voice detector: its layers lie in the branches of an If, one for each sampling rate."""
    graph, *_ = ingest_model(shared / "models" / "silero_vad.onnx")
    generator = np.random.default_rng(0)
    feeds = [
        {
            "input": generator.normal(size=(batch, samples)).astype(np.float32),
            "state": generator.normal(size=(2, batch, 128)).astype(np.float32),
            "sr": np.array(rate),
        }
        for rate, samples in ((16000, 576), (8000, 288))
        for batch in (1, 3)
    ]
    assert len(check_feeds(graph, feeds).groups) == 8


def test_names_of_inputs_that_bodies_read_stay() -> None:
    graph = make(BRANCHES, **BODIES)
    lost = find_groups(graph).remove([0])
    assert [spec.name for spec in lost.inputs] == ["x", "which"]
    assert isinstance(lost.model, ir.Model)
