"""The rules of LSTM, GRU and RNN: hidden units and features are lost exactly, or kept for a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from app.contracts.failure import SlimlineError
from tests.engine.graph.channels.comparing import ROUNDING, choose, differs, make_feeds, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.ingest import ingest_model
from worker.engine.torch_graph import TorchGraph

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FEATURES, HIDDEN = 7, 6
READERS = """
  t = Transpose <perm = [1, 2, 0, 3]> (y)
  m = ReduceMean <keepdims = 0> (t, two)
  s = MatMul(m, v)
  l = Transpose <perm = [1, 0, 2]> (h)
  k = Reshape(l, flat)
  z = MatMul(k, u)
"""


def make_layer(op: str, options: str = "", inputs: str = "", *, before: str = "", **tensors: Any) -> Graph:
    """x [batch, steps, 5] to features, through `op` with `inputs` behind its bias, to what reads Y and the last state.

    `before` are nodes that make the further inputs.
    """
    directions, rows = 2 if "bidirectional" in options else 1, GATES[op] * HIDDEN
    shapes = {
        "f": (5, FEATURES), "w": (directions, rows, FEATURES), "r": (directions, rows, HIDDEN),
        "b": (directions, 2 * rows), "v": (HIDDEN, 3), "u": (directions * HIDDEN, 4),
    }  # fmt: skip
    return make(
        f"""(float[batch, steps, 5] x, int32[batch] lengths) => (float[p, q, 3] s, float[p, 4] z) {{
          {before}
          e = MatMul(x, f)
          o = Transpose <perm = [1, 0, 2]> (e)
          y, h = {op} <hidden_size = {HIDDEN}{options}> (o, w, r, b{inputs})
          {READERS}
        }}""",
        **{**shapes, "two": [2], "flat": [0, -1], **tensors},
    )


def layers_of(graph: Graph) -> list[ir.Node]:
    return [node for node in graph.nodes() if node.op_type in GATES]


def sizes(groups: Groups) -> list[tuple[str, int]]:
    return sorted((group.kind, len(group.units)) for group in groups.groups)


BOTH = [("channel", FEATURES), ("hidden unit", HIDDEN)]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", list(GATES))
def test_units_and_features(op: str, direction: str) -> None:
    """Both directions lose the same units: they are one axis of the tensors. Sequences may have no steps at all."""
    groups = prune_exactly(make_layer(op, f', direction = "{direction}"', ", lengths"))
    assert sizes(groups) == BOTH
    assert ties(groups) == [f"{HIDDEN}: b[1] r[1] r[2] u[0] v[0] w[1]", f"{FEATURES}: f[1] w[2]"]


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("LSTM", ", clip = 0.4"),
        ("LSTM", ", input_forget = 1"),
        ("LSTM", ', activations = ["HardSigmoid", "Softsign", "Elu"]'),
        ("LSTM", ', activations = ["Sigmoid", "Sigmoid", "Softplus"]'),
        ("GRU", ", linear_before_reset = 1"),
        ("GRU", ', activations = ["HardSigmoid", "Softsign"]'),
        ("RNN", ', activations = ["Sigmoid"]'),
    ],
)
def test_forms_of_a_layer(op: str, options: str) -> None:
    """Also where a masked unit is not zero: what reads it has weights that are."""
    assert sizes(prune_exactly(make_layer(op, options))) == BOTH


def test_peepholes() -> None:
    groups = prune_exactly(make_layer("LSTM", inputs=", lengths, , , p", p=(1, 3 * HIDDEN)))
    assert f"{HIDDEN}: b[1] p[1] r[1] r[2] u[0] v[0] w[1]" in ties(groups)


@pytest.mark.parametrize("op", list(GATES))
def test_learned_first_states(op: str) -> None:
    """Stored ones, copied for the batch."""
    before = """
      n = Shape <start = 0, end = 1> (x)
      d = Concat <axis = 0> (one, n, one)
      h0 = Expand(learned, d)
      c0 = Expand(cell, d)"""
    inputs = ", , h0, c0" if op == "LSTM" else ", , h0"
    graph = make_layer(op, inputs=inputs, before=before, one=[1], learned=(1, 1, HIDDEN), cell=(1, 1, HIDDEN))
    cell = "cell[2] " if op == "LSTM" else ""
    assert f"{HIDDEN}: b[1] {cell}learned[2] r[1] r[2] u[0] v[0] w[1]" in ties(prune_exactly(graph))


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_computed_first_states(direction: str) -> None:
    """What makes them has an axis for the directions, which stays."""
    before = """
      a = ReduceMean <keepdims = 0> (x, one)
      h0 = MatMul(a, p)
      c1 = MatMul(a, q)
      c0 = Sigmoid(c1)"""
    made = (2 if direction == "bidirectional" else 1, 5, HIDDEN)
    inputs = ", lengths, h0, c0"
    graph = make_layer("LSTM", f', direction = "{direction}"', inputs, before=before, one=[1], p=made, q=made)
    groups = prune_exactly(graph)
    assert f"{HIDDEN}: b[1] p[2] q[2] r[1] r[2] u[0] v[0] w[1]" in ties(groups)
    assert not {("p", 0), ("q", 0)} & {(member.constant, member.axis) for member in groups.members}


def test_layers_that_share_zeros_as_first_states_are_apart() -> None:
    """The zeros are left out: without them a layer starts from zeros."""
    graph = make(
        """(float[batch, steps, 7] x) => (float[p, q, r, 3] z) {
          o = Transpose <perm = [1, 0, 2]> (x)
          n = Shape <start = 0, end = 1> (x)
          d = Concat <axis = 0> (two, n, six)
          zeros = Expand(zero, d)
          first = Slice(zeros, a, b, a)
          second = Slice(zeros, b, two, a)
          y, h = GRU <hidden_size = 6> (o, w, r, , , first)
          k = Squeeze(y, b)
          u, j = GRU <hidden_size = 6> (k, w2, r2, , , second)
          z = MatMul(u, v)
        }""",
        two=[2], six=[6], a=[0], b=[1], zero=np.zeros(1, np.float32),
        w=(1, 18, 7), r=(1, 18, 6), w2=(1, 18, 6), r2=(1, 18, 6), v=(6, 3),
    )  # fmt: skip
    groups = prune_exactly(graph)
    assert ties(groups) == ["6: r2[1] r2[2] v[0] w2[1]", "6: r[1] r[2] w2[2] w[1]"]
    lost = groups.remove(groups.groups[0].units[:2])
    assert [len(node.inputs) < 6 or node.inputs[5] is None for node in layers_of(lost)] == [True, False]
    assert [node.attributes["hidden_size"].as_int() for node in layers_of(lost)] == [4, 6]


def test_the_number_of_units_is_part_of_the_layer() -> None:
    """With the old one ONNX Runtime refuses what is left."""
    groups = find_groups(make_layer("LSTM"))
    lost = groups.remove(choose(groups))
    layers_of(lost)[0].attributes["hidden_size"] = ir.AttrInt64("hidden_size", HIDDEN)
    with pytest.raises(SlimlineError):
        differs(lost, lost, make_feeds(make_layer("LSTM")))


def test_a_gate_that_loses_another_unit_is_noticed() -> None:
    """Planted: the forget gate keeps its rows one further on."""
    graph = make_layer("LSTM")
    groups = find_groups(graph)
    gone = choose(groups)
    lost, feeds = groups.remove(gone), make_feeds(graph)
    assert differs(groups.masked(gone), lost, feeds) < ROUNDING
    rows = lost.array("r").copy()
    kept = rows.shape[2]
    rows[:, 2 * kept : 3 * kept] = np.roll(rows[:, 2 * kept : 3 * kept], 1, axis=1)
    lost.set_array("r", rows)
    assert differs(groups.masked(gone), lost, feeds) > 100 * ROUNDING


AVERAGED = """(float[steps, batch, 5] x) => (float[p, q] z) {{
  y, h = {op} <hidden_size = 6, activations = [{activations}]> (x, w, r, b)
  m = ReduceMean <keepdims = 0> (y, last)
  z = Squeeze(m, one)
}}"""


@pytest.mark.parametrize(
    ("op", "activations", "is_zero"),
    [
        ("LSTM", '"Sigmoid", "Tanh", "Tanh"', True),
        ("LSTM", '"Sigmoid", "Tanh", "Sigmoid"', False),
        ("LSTM", '"Sigmoid", "HardSigmoid", "Tanh"', False),
        ("GRU", '"Sigmoid", "Tanh"', True),
        ("GRU", '"Tanh", "Sigmoid"', False),
        ("RNN", '"Relu"', True),
        ("RNN", '"Softplus"', False),
        ("RNN", '"Affine"', False),
    ],
)
def test_a_mean_over_units_needs_masked_ones_to_be_zero(op: str, activations: str, is_zero: bool) -> None:
    rows = GATES[op] * 6
    text = AVERAGED.format(op=op, activations=activations)
    graph = make(text, w=(1, rows, 5), r=(1, rows, 6), b=(1, 2 * rows), last=[-1], one=[1])
    if is_zero:
        assert sizes(prune_exactly(graph)) == [("hidden unit", 6)]
    else:
        groups = find_groups(graph)
        assert not groups.groups
        assert "ReduceMean" in (groups.obstacle(graph.layers()[0]) or "")


@pytest.mark.parametrize(
    ("first", "tied"),
    [
        ("a = MatMul(learned, k)  s = Tanh(a)", ["6: b[1] k[1] r[1] r[2] w[1]"]),
        ("a = MatMul(learned, k)  s = Sigmoid(a)", []),
        ("s = Identity(nothing)", ["6: b[1] r[1] r[2] w[1]"]),
    ],
)
def test_a_mean_over_units_needs_first_states_of_zero(first: str, tied: list[str]) -> None:
    graph = make(
        f"""(float[steps, batch, 5] x) => (float[p, q] z) {{
          {first}
          n = Shape <start = 1, end = 2> (x)
          d = Concat <axis = 0> (one, n, six)
          h0 = Expand(s, d)
          y, h = GRU <hidden_size = 6> (x, w, r, b, , h0)
          m = ReduceMean <keepdims = 0> (y, last)
          z = Squeeze(m, one)
        }}""",
        learned=(1, 1, 4), k=(4, 6), w=(1, 18, 5), r=(1, 18, 6), b=(1, 36), six=[6], last=[-1], one=[1],
        nothing=np.zeros((1, 1, 1), np.float32),
    )  # fmt: skip
    assert ties(prune_exactly(graph) if tied else find_groups(graph)) == tied


def test_states_of_the_model_stay() -> None:
    """A first state that the caller gives has as many units as it always had."""
    text = """(float[steps, batch, 5] x, float[1, batch, 6] h0) => (float[p, q, 3] z) {
      y, h = GRU <hidden_size = 6> (x, w, r, , , h0)
      z = MatMul(h, v)
    }"""
    graph = make(text, w=(1, 18, 5), r=(1, 18, 6), v=(6, 3))
    groups = find_groups(graph)
    assert not groups.groups
    assert "'h0'" in (groups.obstacle(graph.layers()[0]) or "")


def test_computed_weights_keep_the_units_that_they_read() -> None:
    """R is exp(k): where k is masked it is 1, and goes on with the state."""
    text = """(float[steps, batch, 5] x) => (float[p, q, 3] z) {
      e = MatMul(x, f)
      r = Exp(k)
      y, h = RNN <hidden_size = 6> (e, w, r)
      z = MatMul(h, v)
    }"""
    graph = make(text, f=(5, 7), w=(1, 6, 7), k=(1, 6, 6), v=(6, 3))
    groups = prune_exactly(graph)
    assert {(member.constant, member.axis) for member in groups.members} == {("f", 1), ("w", 2)}


def test_steps_stay() -> None:
    """Though a layer makes them: with fewer of them the last state is another."""
    text = """(float[batch, 5, 4] x) => (float[p, q, 3] z) {
      e = MatMul(x, f)
      o = Transpose <perm = [2, 0, 1]> (e)
      y, h = RNN <hidden_size = 6> (o, w, r)
      z = MatMul(h, v)
    }"""
    graph = make(text, f=(4, 9), w=(1, 6, 5), r=(1, 6, 6), v=(6, 3))
    groups = prune_exactly(graph)
    assert ties(groups) == ["6: r[1] r[2] v[0] w[1]"]
    assert "a step of RNN" in (groups.obstacle(graph.layers()[0]) or "")


@pytest.mark.parametrize("op", list(GATES))
def test_batch_first(op: str) -> None:
    """Layout 1, which ONNX Runtime does not run: compared in torch."""
    rows = GATES[op] * 6
    graph = make(
        f"""(float[batch, steps, 5] x) => (float[p, q, d, 3] s, float[p, d, 3] z) {{
          y, h = {op} <hidden_size = 6, layout = 1, direction = "bidirectional"> (x, w, r, b)
          s = MatMul(y, v)
          z = MatMul(h, v)
        }}""",
        w=(2, rows, 5), r=(2, rows, 6), b=(2, 2 * rows), v=(6, 3),
    )  # fmt: skip
    groups = find_groups(graph)
    assert sizes(groups) == [("hidden unit", 6)]
    gone = choose(groups)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 11, 5)).astype(np.float32))
    wanted, got = (TorchGraph(each)(x) for each in (groups.masked(gone), groups.remove(gone)))
    for one, other in zip(wanted, got, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_recurrent_models_lose_units_of_every_layer(shared: Path) -> None:
    for name, layers in (("exports/lstm", 2), ("exports/gru", 2), ("exports/bilstm", 1), ("mnist_row_lstm", 1)):
        graph, *_ = ingest_model(shared / "models" / f"{name}.onnx")
        groups = prune_exactly(graph, seeds=(0,))
        assert [group.kind for group in groups.groups].count("hidden unit") == layers
