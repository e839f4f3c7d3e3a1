"""DynamicQuantizeLSTM beside ONNX Runtime's kernel on one thread: no other implementation of it exists."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph
from worker.engine.compression import compress
from worker.engine.torch_graph.table import MICROSOFT

STEPS, SAMPLES, INPUTS, HIDDEN = 9, 4, 7, 12
NAMES = ("X", "W", "R", "B", "lengths", "h", "c", "P", "W_scale", "W_zero", "R_scale", "R_zero")
ALL = ("Y", "Y_h", "Y_c")
EXACT = {"activations": ["HardSigmoid", "Softsign", "Softsign"], "activation_alpha": [0.2], "activation_beta": [0.5]}
"""Activations that both compute alike to the last bit, so that no code falls on another side of a tie."""


@dataclass
class Layer:
    """Inputs of one layer. Codes of weights have 7 bits, which no CPU saturates."""

    directions: int = 1
    dtype: type = np.int8
    per_channel: bool = False
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def normal(self, *shape: int) -> np.ndarray:
        return self.generator.standard_normal(shape).astype(np.float32)

    def weight(self, size: int) -> np.ndarray:
        codes = self.generator.integers(-64, 64, (self.directions, size, 4 * HIDDEN))
        return (codes if self.dtype is np.int8 else codes + 64).astype(self.dtype)

    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (self.directions, 4 * HIDDEN) if self.per_channel else (self.directions,)
        zero = 0 if self.dtype is np.int8 and self.per_channel else self.generator.integers(3, 60)
        return self.generator.uniform(0.002, 0.01, shape).astype(np.float32), np.full(shape, zero, self.dtype)

    def inputs(self, *optional: str) -> dict[str, np.ndarray]:
        """By name; of those that may be left out only the `optional` ones."""
        given = {"X": self.normal(STEPS, SAMPLES, INPUTS), "W": self.weight(INPUTS), "R": self.weight(HIDDEN)}
        given |= {"B": self.normal(self.directions, 8 * HIDDEN), "lengths": np.array([4, 7, 1, 5], np.int32)}
        given |= {name: self.normal(self.directions, SAMPLES, HIDDEN) for name in "hc"}
        given["P"] = self.normal(self.directions, 3 * HIDDEN)
        for name in "WR":
            given[f"{name}_scale"], given[f"{name}_zero"] = self.parameters()
        return {name: x for name, x in given.items() if name not in NAMES[3:8] or name in optional}


def layer_model(given: Mapping[str, np.ndarray], outputs: tuple[str, ...] = ALL, **attributes: Any) -> onnx.ModelProto:
    """X, lengths and states are fed; all else is constant. An output that is named "" is left out."""
    names = [name if name in given else "" for name in NAMES]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, outputs, name="lstm", domain=MICROSOFT, hidden_size=HIDDEN, **attributes
    )
    fed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(given[name].dtype), given[name].shape)
        for name in feed(given)
    ]
    constants = [numpy_helper.from_array(x, name) for name, x in given.items() if name not in feed(given)]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name]
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph([node], "one", fed, results, constants)
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def feed(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: given[name] for name in ("X", "lengths", "h", "c") if name in given}


def on_one_thread(model: bytes, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))


def expect(given: Mapping[str, np.ndarray], outputs: tuple[str, ...] = ALL, **attributes: Any) -> None:
    model = layer_model(given, outputs, **attributes)
    wanted = on_one_thread(model.SerializeToString(), feed(given))
    with torch.no_grad():
        got = TorchGraph(Graph.from_proto(model))(*map(torch.from_numpy, feed(given).values()))
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-6, atol=1e-6, strict=True)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_of_both_types_and_granularities(direction: str, dtype: type, per_channel: bool) -> None:
    layer = Layer(2 if direction == "bidirectional" else 1, dtype, per_channel)
    expect(layer.inputs(), direction=direction)
    expect(layer.inputs("B", "h", "c"), direction=direction)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("outputs", [ALL, ("", "Y_h", "Y_c"), ("Y",), ("", "Y_h")])
def test_sequences_of_own_lengths(direction: str, outputs: tuple[str, ...]) -> None:
    given = Layer(2 if direction == "bidirectional" else 1).inputs("B", "lengths", "h", "c")
    given["X"][7:] *= 50  # behind the longest sequence: no part of the range
    given["X"][5:7, 0] *= 3  # behind the end of a shorter one: part of it
    expect(given, outputs, direction=direction)


def test_empty_sequences() -> None:
    given = Layer().inputs("B", "lengths", "h", "c")
    given["lengths"] = np.array([0, 3, 9, 0], np.int32)
    expect(given)


@pytest.mark.parametrize(
    "attributes", [{}, {"clip": 0.4}, {"input_forget": 1}, {"activations": ["Sigmoid", "Relu", "Elu"]}]
)
def test_peepholes_and_forms_of_the_cell(attributes: dict[str, Any]) -> None:
    expect(Layer().inputs("B", "P"), **attributes)


def test_long_sequences_are_equal_where_the_activations_are() -> None:
    layer = Layer(per_channel=True)
    given = layer.inputs("B")
    given["X"] = layer.normal(100, 16, INPUTS)
    expect(given, **EXACT)
    given["X"] = given["X"][:, :1]
    expect(given, **EXACT)


def test_gradients_are_those_of_the_layer_without_rounding() -> None:
    given = Layer(per_channel=True).inputs("B", "h", "c")
    quantized = TorchGraph(Graph.from_proto(layer_model(given)))
    plain = {name: given[name] for name in NAMES[:8] if name in given}
    for name in "WR":
        codes = given[name].astype(np.float32)
        plain[name] = (codes * given[f"{name}_scale"][:, None]).transpose(0, 2, 1)
    node = helper.make_node("LSTM", ["X", "W", "R", "B", "", "h", "c"], ALL, hidden_size=HIDDEN)
    model = layer_model(given)
    model.graph.node[0].CopyFrom(node)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(plain[name], name) for name in "WRB")
    rounded, exact = (gradients(each, given) for each in (quantized, TorchGraph(Graph.from_proto(model))))
    for name in "WR":  # a scale moves all the weights of its column
        by_code = exact.pop(name).transpose(0, 2, 1) * given[name]
        exact[f"{name}_scale"] = by_code.sum(1)
    assert rounded.keys() == exact.keys()
    for name, gradient in exact.items():
        assert np.abs(rounded[name] - gradient).max() < 0.02 * np.abs(gradient).max(), name


def gradients(module: TorchGraph, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    fed = {name: torch.from_numpy(x).requires_grad_() for name, x in feed(given).items()}
    sum((y * y).sum() for y in module(*fed.values())).backward()
    return {name: each.grad.numpy() for name, each in {**fed, **dict(module.named_parameters())}.items()}


@pytest.mark.parametrize(
    ("change", "attributes"),
    [
        ({}, {"layout": 1}),
        ({}, {"clip": -1.0}),
        ({"X": np.zeros((2, 1, INPUTS), np.float16)}, {}),
        ({"W": np.zeros((1, INPUTS, 4 * HIDDEN), np.float32)}, {}),
        ({"R_zero": np.zeros((1, 4 * HIDDEN), np.int8)}, {}),
        ({"W_zero": None}, {}),
    ],
)
def test_other_forms_are_refused(change: dict[str, np.ndarray | None], attributes: dict[str, Any]) -> None:
    given = {name: x for name, x in {**Layer().inputs(), **change}.items() if x is not None}
    with pytest.raises(SlimlineError) as caught:
        TorchGraph(Graph.from_proto(layer_model(given, **attributes)))
    assert caught.value.failure.code == "OPERATOR_UNSUPPORTED"


@pytest.mark.parametrize("recipe", ["quantize.dynamic", "quantize.dynamic:weights.per_channel=false"])
def test_what_quantize_dynamic_makes_of_a_model(shared: Path, tmp_path: Path, recipe: str) -> None:
    compress(shared / "models" / "mnist_row_lstm.onnx", recipe=recipe, output=tmp_path / "out.onnx")
    model = (tmp_path / "out.onnx").read_bytes()
    module = TorchGraph(Graph.from_proto(onnx.load_model_from_string(model)))
    rows = np.random.default_rng(0).random((16, 28, 28), np.float32)
    with torch.no_grad():
        (got,) = module(torch.from_numpy(rows))
    difference = np.abs(got.numpy() - on_one_thread(model, {"rows": rows})[0]).max(1)
    # One code on the other side of a tie moves the logits of its sample, which go up to 7, by a few hundredths.
    assert np.median(difference) < 1e-5
    assert difference.max() < 0.1
