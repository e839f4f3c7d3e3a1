"""LSTM, GRU and RNN beside ONNX Runtime: the reference implementation knows few of their forms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, find_operator

NodeRunner = Callable[..., list[np.ndarray]]
STEPS, SAMPLES, INPUTS, HIDDEN = 5, 3, 4, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": 3, "GRU": 2, "RNN": 2}
LENGTHS = [None, np.array([5, 2, 3], np.int32), np.array([0, 5, 1], np.int32)]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.7, shape).astype(np.float32)


def layer(op: str, direction: str, lengths: np.ndarray | None) -> list[np.ndarray | None]:
    """X, W, R, B, sequence_lens and the initial states."""
    count, rows = (2 if direction == "bidirectional" else 1), GATES[op] * HIDDEN
    states = [normal(count, SAMPLES, HIDDEN) for _ in range(2 if op == "LSTM" else 1)]
    weights = [normal(count, rows, INPUTS), normal(count, rows, HIDDEN), normal(count, 2 * rows)]
    return [normal(STEPS, SAMPLES, INPUTS), *weights, lengths, *states]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "form"),
    [
        ("LSTM", {}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"clip": 0.4}),
        ("GRU", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"clip": 0.4}),
        ("RNN", {}),
    ],
)
def test_forms(
    expect_runtime: NodeRunner, op: str, form: dict[str, Any], direction: str, lengths: np.ndarray | None
) -> None:
    inputs = layer(op, direction, lengths)
    expect_runtime(op, inputs, outputs=OUTPUTS[op], hidden_size=HIDDEN, direction=direction, **form)
    expect_runtime(op, inputs, hidden_size=HIDDEN, direction=direction, **form)
    expect_runtime(op, inputs[:3], hidden_size=HIDDEN, direction=direction, **form)


def test_peepholes(expect_runtime: NodeRunner) -> None:
    inputs = [*layer("LSTM", "bidirectional", LENGTHS[1]), normal(2, 3 * HIDDEN)]
    expect_runtime("LSTM", inputs, outputs=3, hidden_size=HIDDEN, direction="bidirectional")


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [
        ("Relu", [], []),
        ("Softsign", [], []),
        ("Softplus", [], []),
        ("Elu", [], []),
        ("LeakyRelu", [0.2], []),
        ("HardSigmoid", [], []),
        ("HardSigmoid", [0.3], [0.4]),
        ("Affine", [0.5], [0.1]),
        ("ScaledTanh", [0.5], [1.5]),
        ("ThresholdedRelu", [0.3], []),
    ],
)
def test_activations(expect_runtime: NodeRunner, name: str, alpha: list[float], beta: list[float]) -> None:
    given = {"activation_alpha": alpha} if alpha else {}
    given |= {"activation_beta": beta} if beta else {}
    names = ["Sigmoid", name, "Tanh"]
    expect_runtime("LSTM", layer("LSTM", "forward", None), outputs=3, hidden_size=HIDDEN, activations=names, **given)


def test_alphas_go_to_those_that_take_one(expect_runtime: NodeRunner) -> None:
    names = ["HardSigmoid", "Tanh", "LeakyRelu", "Elu"]
    alphas, betas = [0.3, 0.1, 0.7], [0.4]
    expect_runtime(
        "GRU",
        layer("GRU", "bidirectional", None),
        hidden_size=HIDDEN,
        direction="bidirectional",
        activations=names,
        activation_alpha=alphas,
        activation_beta=betas,
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {"activations": ["Affine", "Tanh", "Tanh"]},
        {"activations": ["Sigmoid", "Tanh"]},
        {"activations": ["Tanh", "Tanh"]},
        {"activations": ["Sigmoid", "Gelu", "Tanh"]},
        {"activations": ["Tanh", "Elu", "Elu"], "activation_alpha": [0.1, 0.2, 0.3]},
        {"clip": 0.0},
        {"direction": "sideways"},
    ],
)
def test_what_is_not_clear_is_refused(run_node: NodeRunner, attributes: dict[str, Any]) -> None:
    with pytest.raises(SlimlineError) as caught:
        run_node("LSTM", layer("LSTM", "forward", None), hidden_size=HIDDEN, **attributes)
    assert caught.value.failure.code == "OPERATOR_UNSUPPORTED"


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("form", [{}, {"clip": 5.0}])
def test_batch_first(run_node: NodeRunner, op: str, form: dict[str, float]) -> None:
    inputs = layer(op, "bidirectional", LENGTHS[1])
    y, *states = run_node(op, inputs, outputs=OUTPUTS[op], direction="bidirectional", **form)
    swapped = [
        each.swapaxes(0, 1) if index in (0, 5, 6) and each is not None else each for index, each in enumerate(inputs)
    ]
    turned, *turned_states = run_node(op, swapped, outputs=OUTPUTS[op], direction="bidirectional", layout=1, **form)
    np.testing.assert_allclose(turned, y.transpose(2, 0, 1, 3), rtol=1e-5, atol=1e-6)
    for one, other in zip(turned_states, states, strict=True):
        np.testing.assert_allclose(one, other.swapaxes(0, 1), rtol=1e-5, atol=1e-6)


def build(op: str, *, outputs: int, **attributes: Any) -> Run:
    node = Node(
        name="node",
        op=op,
        domain="",
        version=22,
        attributes=attributes,
        input_types=(ir.DataType.DOUBLE,) * 6,
        given=(True,) * 6,
        wanted=(True,) * outputs,
    )
    entry = find_operator("", op)
    assert entry is not None
    return entry.build(node)


@pytest.mark.parametrize(
    ("op", "form"), [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {"clip": 1.0})]
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_gradients_are_those_of_the_output(op: str, form: dict[str, Any], outputs: int) -> None:
    run = build(op, outputs=outputs, direction="bidirectional", **form)
    x, w, r, b, _, h, *_ = layer(op, "bidirectional", None)
    tensors = [torch.from_numpy(each).double().requires_grad_() for each in (x[:3, :2], w, r, b, h[:, :2])]
    lengths = torch.tensor([3, 2], dtype=torch.int32)

    def forward(x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, b: torch.Tensor, h: torch.Tensor) -> Any:
        return run(x, w, r, b, lengths, h)[:outputs]

    assert torch.autograd.gradcheck(forward, tensors)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_weights_of_the_native_module_give_its_output_and_gradients(op: str) -> None:
    native = getattr(torch.nn, op)(INPUTS, HIDDEN)
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}[op]

    def onnx_order(each: torch.Tensor) -> torch.Tensor:
        return torch.cat([each.chunk(GATES[op])[gate] for gate in order])

    weights = [onnx_order(each.detach()) for each in (native.weight_ih_l0, native.weight_hh_l0)]
    bias = torch.cat([onnx_order(each.detach()) for each in (native.bias_ih_l0, native.bias_hh_l0)])
    w, r, b = (each.unsqueeze(0).requires_grad_() for each in (*weights, bias))
    x = torch.from_numpy(normal(STEPS, SAMPLES, INPUTS))
    node = Node(name="n", op=op, domain="", version=22, attributes={"linear_before_reset": 1}, wanted=(True,))
    entry = find_operator("", op)
    assert entry is not None
    y = entry.build(node)(x, w, r, b)[0]
    wanted, _ = native(x)
    torch.testing.assert_close(y.squeeze(1), wanted)
    y.square().sum().backward()
    wanted.square().sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad[0], onnx_order(native.weight_ih_l0.grad))
