"""Sizes and constants that follow from numbers for the free dimensions, as ONNX Runtime has them when it runs."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels.preparation import prepare
from worker.engine.graph.channels.sizes import Sizes
from worker.engine.session import open_graph, run_session

ARITHMETIC = """(float[batch, length, 6] x) => (float[a, b, c, d] y) {
  s = Shape(x)
  n = Gather(s, zero)
  n1 = Unsqueeze(n, axes)
  l = Shape <start = 1, end = 2> (x)
  half = Div(l, two)
  target = Concat <axis = 0> (n1, half, two, six)
  r = Reshape(x, target)
  filled = ConstantOfShape <value = float[1] {1.0}> (target)
  wide = Expand(filled, target)
  t = Add(r, wide)
  y = Transpose <perm = [0, 2, 1, 3]> (t)
}"""
BRANCHES = """(float[batch, length, 6] x) => (float[a, b] y) {
  rank = Shape(x)
  size = Size(rank)
  is_batch = Equal(size, three)
  y = If (is_batch) <
    then_branch = t () => (float[t0, t1] p) { p = ReduceMean <keepdims = 0> (x, one) },
    else_branch = e () => (float[e0, e1] q) { q = Squeeze(x, one) }
  >
}"""
LOOP = """(float[batch, length, 6] x) => (float[a, b, c] y, float[d, e, f, g] rows) {
  l = Shape <start = 1, end = 2> (x)
  trips = Squeeze(l)
  y, rows = Loop (trips, , x) <
    body = b (int64 i, bool go, float[b0, b1, b2] s) => (bool on, float[c0, c1, c2] t, float[d0, d1, d2] row) {
      on = Identity(go)
      z = Shape(s)
      m = Expand(s, z)
      t = Relu(m)
      row = ReduceMax(t, one)
    }
  >
}"""
GROWING = """(float[batch, length, 6] x) => (float[a, b, c] y, float[d, e] last) {
  y, last = Loop (two, , x, x0) <
    body = b (int64 i, bool go, float[b0, b1, b2] s, float[b3, b4] k) =>
        (bool on, float[c0, c1, c2] t, float[c3, c4] k2) {
      on = Identity(go)
      t = Concat <axis = 1> (s, s)
      k2 = Relu(k)
    }
  >
}"""
SCAN = """(float[batch, length, 6] x) => (float[a, b] y, float[c, d, e] rows) {
  n = Shape <start = 0, end = 1> (x)
  d = Concat <axis = 0> (n, six)
  first = Expand(zeros, d)
  y, rows = Scan (first, x) <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [-1],
    body = b (float[s0, s1] s, float[r0, r1] i) => (float[t0, t1] t, float[o0, o1] o) {
      t = Add(s, i)
      o = Identity(t)
    }
  >
}"""
NUMBERS: dict[str, Any] = {
    "zero": np.array(0),
    "axes": [0],
    "one": [1],
    "two": [2],
    "six": [6],
    "three": np.array(3),
    "zeros": np.zeros(1, np.float32),
    "x0": (3, 4),
}


def watched(graph: Graph) -> Graph:
    """The graph with every value of its main part as an output too."""
    copy = graph.clone()
    main = copy.model.graph
    for value in (value for node in main for value in node.outputs):
        if not value.is_graph_output():
            main.outputs.append(value)
    return copy


@pytest.mark.parametrize("text", [ARITHMETIC, BRANCHES, LOOP, SCAN], ids=["arithmetic", "branches", "loop", "scan"])
def test_sizes_are_those_of_a_run(text: str) -> None:
    prepared = prepare(make(text, **NUMBERS))
    sizes, wide = Sizes(prepared), watched(prepared)
    for of in (sizes.of, sizes.again):
        shape = of(prepared.model.graph.inputs[0])
        assert shape is not None
        assert shape[1] > 1, "a branch that does not run was heard"
        got = run_session(open_graph(wide), {"x": np.ones(shape, np.float32)})
        assert {spec.name: of(ir.Value(name=spec.name)) for spec in wide.outputs} == {
            spec.name: array.shape for spec, array in zip(wide.outputs, got, strict=True)
        }


def test_constants_are_those_that_no_input_changes() -> None:
    prepared = prepare(make(BRANCHES, **NUMBERS))
    sizes, nodes = Sizes(prepared), {node.op_type: node for node in prepared.nodes()}
    assert sizes.constant(nodes["If"], 0) == np.array(True)
    prepared = prepare(make(ARITHMETIC, **NUMBERS))
    sizes, nodes = Sizes(prepared), {node.op_type: node for node in prepared.nodes()}
    assert sizes.constant(nodes["Reshape"], 1) is None
    assert sizes.constant(nodes["Div"], 1) == np.array([2])


def test_a_state_that_grows_has_no_size() -> None:
    """What it carries beside it keeps its own."""
    prepared = prepare(make(GROWING, **NUMBERS))
    sizes = Sizes(prepared)
    body = next(node for node in prepared.nodes() if node.op_type == "Loop").attributes["body"].as_graph()
    assert [sizes.of(value) for value in body.inputs[2:]] == [None, (3, 4)]
    assert [sizes.of(value) for value in prepared.model.graph.outputs] == [None, (3, 4)]


def test_numbers_that_suit_the_graph_are_found() -> None:
    """A table of 40 positions is too short for the lengths that are tried first."""
    graph = make(
        """(float[batch, length, 6] x) => (float[a, b, c] y) {
          l = Shape <start = 1, end = 2> (x)
          p = Slice(table, start, l, start)
          y = Add(x, p)
        }""",
        table=(40, 6),
        start=[0],
    )
    prepared = prepare(graph)
    sizes, (y,) = Sizes(prepared), prepared.model.graph.outputs
    assert [shape[1:] for shape in (sizes.of(y), sizes.again(y)) if shape] == [(16, 6), (24, 6)]
