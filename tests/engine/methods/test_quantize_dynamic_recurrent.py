"""`quantize.dynamic` on LSTM, GRU and RNN: every form of the layer stays close, and what ONNX Runtime then runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph.weights import count_weights
from worker.engine.measure.kernels import count_kernels
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.torch_graph import TorchGraph

Apply = Callable[[onnx.ModelProto, str], Any]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FEATURES, STEPS, BATCH = 6, 5, 3


def make_recurrent(
    op: str,
    hidden: int,
    *,
    extra: dict[str, np.ndarray] | None = None,
    slots: dict[int, str] | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """x [steps, batch, features] -> `op` -> all states y and the last one h; `slots` places `extra` constants."""
    rng = np.random.default_rng(0)
    directions, gates = 2 if options.get("direction") == "bidirectional" else 1, GATES[op] * hidden
    weights = {
        "W": rng.normal(size=(directions, gates, FEATURES)) / FEATURES**0.5,
        "R": rng.normal(size=(directions, gates, hidden)) / hidden**0.5,
        "B": rng.normal(size=(directions, 2 * gates)) * 0.3,
    }
    inputs = ["x", "W", "R", "B", "", "", "", ""]
    for slot, name in (slots or {}).items():
        inputs[slot] = name
    while not inputs[-1]:
        inputs.pop()
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y", "h"], "layer", hidden_size=hidden, **options)],
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, BATCH, FEATURES])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "h")],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
        + [numpy_helper.from_array(array, name) for name, array in (extra or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def state(directions: int, hidden: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(directions, BATCH, hidden)).astype(np.float32)


def check_close(applied: Any, least_db: float) -> None:
    """Both outputs stay close to those in float, and torch runs the result as ONNX Runtime does."""
    feed = applied.samples.first()
    sessions = [open_session(graph.proto().SerializeToString()) for graph in (applied.before, applied.after)]
    before, after = (run_session(session, feed) for session in sessions)
    with torch.no_grad():
        in_torch = TorchGraph(applied.after)(torch.from_numpy(feed["x"]))
    for expected, got, third in zip(before, after, in_torch, strict=True):
        assert got.shape == expected.shape
        assert (sqnr_db(expected, got) or np.inf) > least_db
        assert (sqnr_db(got, third.numpy()) or np.inf) > 45


LENGTHS = np.array([5, 2, 1], np.int32)
LSTM_FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "both directions": {"direction": "bidirectional"},
    "reverse": {"direction": "reverse"},
    "peepholes": {"extra": {"P": np.full((1, 48), 0.3, np.float32)}, "slots": {7: "P"}},
    "lengths": {"extra": {"L": LENGTHS}, "slots": {4: "L"}},
    "states": {"extra": {"H": state(1, 16), "C": state(1, 16)}, "slots": {5: "H", 6: "C"}},
    "clip": {"clip": 0.5},
    "coupled gates": {"input_forget": 1},
    "activations": {"activations": ["HardSigmoid", "LeakyRelu", "Affine"], "activation_alpha": [0.3, 0.1, 0.5],
                    "activation_beta": [0.4, 0.2]},
}  # fmt: skip


@pytest.mark.parametrize("form", LSTM_FORMS)
def test_every_form_of_an_lstm(form: str, apply_step: Apply) -> None:
    applied = apply_step(make_recurrent("LSTM", 16, **LSTM_FORMS[form]), "quantize.dynamic")
    assert {node.op_type for node in applied.after.nodes()} == {"DynamicQuantizeLSTM"}
    check_close(applied, 30)


SCANNED_FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRU": ("GRU", {}),
    "GRU, product reset": ("GRU", {"linear_before_reset": 1}),
    "GRU, reverse": ("GRU", {"direction": "reverse"}),
    "GRU, both directions and states": (
        "GRU",
        {"direction": "bidirectional", "linear_before_reset": 1, "extra": {"H": state(2, 256)}, "slots": {5: "H"}},
    ),
    "GRU, no bias": ("GRU", {"slots": {3: ""}}),
    "RNN": ("RNN", {}),
    "RNN, both directions": ("RNN", {"direction": "bidirectional", "extra": {"H": state(2, 256)}, "slots": {5: "H"}}),
}  # fmt: skip


@pytest.mark.parametrize("form", SCANNED_FORMS)
def test_a_large_gru_or_rnn_becomes_a_scan_over_integer_products(form: str, apply_step: Apply, tmp_path: Any) -> None:
    op, options = SCANNED_FORMS[form]
    applied = apply_step(make_recurrent(op, 256, **options), "quantize.dynamic")
    check_close(applied, 30)
    applied.after.save(tmp_path / "out.onnx")
    kernels = count_kernels(tmp_path / "out.onnx")
    directions = 2 if options.get("direction") == "bidirectional" else 1
    in_a_step = 2 if op == "GRU" and not options.get("linear_before_reset") else 1
    assert kernels.integer == directions * (1 + in_a_step)
    assert kernels.operators.keys() & {"GRU", "RNN", "MatMulInteger", "Cast"} == set()
    (record,) = applied.record.layers
    assert (record.bits, record.activation_bits, record.integer_kernel) == (8, 8, True)
    before, after = count_weights(applied.before), count_weights(applied.after)
    assert after.bits < 0.3 * before.bits


@pytest.mark.parametrize(("op", "hidden"), [("LSTM", 16), ("GRU", 256), ("GRU", 16)])
def test_one_scale_for_all_of_a_weight(op: str, hidden: int, apply_step: Apply) -> None:
    model = make_recurrent(op, hidden, direction="bidirectional")
    applied = apply_step(model, "quantize.dynamic:weights.per_channel=false")
    scales = [applied.after.array(value) for value in applied.after.initializers() if "_scale" in value.name]
    assert len({float(each) for scale in scales for each in scale.ravel()}) == 2
    check_close(applied, 25)


WEIGHTS_ONLY_FORMS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "small GRU": ("GRU", 16, {"direction": "bidirectional"}),
    "small RNN": ("RNN", 16, {}),
    "lengths": ("GRU", 256, {"extra": {"L": LENGTHS}, "slots": {4: "L"}}),
    "clip": ("RNN", 256, {"clip": 0.5}),
    "activations": ("RNN", 256, {"activations": ["Relu"]}),
}


@pytest.mark.parametrize("form", WEIGHTS_ONLY_FORMS)
def test_others_get_integer_weights_that_cost_nothing_at_run_time(form: str, apply_step: Apply, tmp_path: Any) -> None:
    op, hidden, options = WEIGHTS_ONLY_FORMS[form]
    applied = apply_step(make_recurrent(op, hidden, **options), "quantize.dynamic")
    check_close(applied, 30)
    applied.after.save(tmp_path / "out.onnx")
    assert count_kernels(tmp_path / "out.onnx").operators == {op: 1}
    (record,) = applied.record.layers
    assert (record.bits, record.activation_bits, record.integer_kernel) == (8, None, False)
    weights = [applied.after.array(name) for name in ("W_quantized", "R_quantized")]
    assert [array.dtype for array in weights] == [np.int8, np.int8]
    expected = sum(array.size * 8 for array in weights) + applied.before.array("B").size * 32
    assert count_weights(applied.after).bits == expected
    assert any("integer weights only" in note for note in applied.record.notes)


def test_a_gru_in_a_body(apply_step: Apply) -> None:
    """The branch of an If: what the Scan reads lies in the branch, two graphs further out than its body."""
    inner = make_recurrent("GRU", 256).graph
    then = helper.make_graph(inner.node, "then", [], inner.output, inner.initializer)
    zeros = [
        helper.make_node("Expand", ["zero", "all"], ["y_else"]),
        helper.make_node("Expand", ["zero", "last"], ["h_else"]),
    ]
    constants = {"zero": np.zeros((), np.float32), "all": np.array([5, 1, 3, 256]), "last": np.array([1, 3, 256])}
    other = helper.make_graph(
        zeros,
        "else",
        [],
        [helper.make_tensor_value_info(f"{name}_else", TensorProto.FLOAT, None) for name in ("y", "h")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    positive = [
        helper.make_node("ReduceMax", ["x"], ["highest"], keepdims=0),
        helper.make_node("Greater", ["highest", "floor"], ["is_large"]),
        helper.make_node("If", ["is_large"], ["out_y", "out_h"], "choose", then_branch=then, else_branch=other),
    ]
    outputs = [helper.make_tensor_value_info(f"out_{name}", TensorProto.FLOAT, None) for name in ("y", "h")]
    floor = numpy_helper.from_array(np.array(-1e9, np.float32), "floor")
    graph = helper.make_graph(positive, "outer", inner.input, outputs, [floor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    applied = apply_step(model, "quantize.dynamic")
    assert [node.op_type for node in applied.after.nodes()].count("Scan") == 1
    check_close(applied, 30)


def test_digits_read_row_by_row_keep_their_accuracy(apply_step: Apply, shared: Any) -> None:
    """97.9 % in float on the test set; the first 1000 of it here."""
    model = onnx.load(shared / "models" / "mnist_row_lstm.onnx")
    model.opset_import[0].version = 18
    applied = apply_step(model, "quantize.dynamic")
    with np.load(shared / "data" / "mnist_test.npz") as data:
        x, y = data["x"][:1000].astype(np.float32) / 255, data["y"][:1000]
    sessions = [open_session(graph.proto().SerializeToString()) for graph in (applied.before, applied.after)]
    right = [(run_session(s, {"rows": x.reshape(-1, 28, 28)})[0].argmax(1) == y).sum() for s in sessions]
    assert right[1] >= right[0] - 3
