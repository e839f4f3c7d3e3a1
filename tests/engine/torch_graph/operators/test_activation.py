from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

Node = Callable[..., list[np.ndarray]]
X = np.linspace(-4, 4, 24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_before_opset_13_axes_from_one_on_are_one(op: str, axis: int | None, run_node: Node, expect_node: Node) -> None:
    attributes = {} if axis is None else {"axis": axis}
    rows = 1 if axis == 0 else 2 if axis in (1, None) else 6
    (want,) = expect_node(op, [X.reshape(rows, -1)], axis=-1)
    (got,) = run_node(op, [X], opset=11, **attributes)
    np.testing.assert_allclose(got, want.reshape(X.shape), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 1), (1,), (4,), (2, 3, 4), ()])
def test_slopes_are_broadcast_to_x(shape: tuple[int, ...], expect_node: Node) -> None:
    expect_node("PRelu", [X, np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)])


def test_slopes_of_channels_have_the_gradient_of_torch() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 4] x, float[3, 1] slope) => (y)
    { y = PRelu(x, slope) }"""
    module = TorchGraph(Graph.from_proto(onnx.parser.parse_model(text)))
    slope = torch.tensor([[0.1], [0.2], [0.3]], requires_grad=True)
    (y,) = module(torch.from_numpy(X), slope)
    (gradient,) = torch.autograd.grad(y.square().sum(), slope)
    (native,) = torch.autograd.grad(F.prelu(torch.from_numpy(X), slope.reshape(-1)).square().sum(), slope)
    torch.testing.assert_close(gradient, native)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint64, np.float32])
def test_shrink_of_every_kind_of_number(dtype: type, expect_node: Node) -> None:
    expect_node("Shrink", [np.array([0, 1, 2, 9, 100], dtype)], bias=1.5, lambd=1.0)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Selu", {}),
        ("Selu", {"alpha": 2.0, "gamma": 3.0}),
        ("HardSigmoid", {}),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        ("Swish", {"alpha": 0.5, "opset": 24}),
        ("ThresholdedRelu", {"alpha": 2.0}),
        ("Celu", {"alpha": 2.0}),
    ],
)
def test_attributes_that_torch_has_and_has_not(op: str, attributes: dict[str, float], expect_node: Node) -> None:
    expect_node(op, [X], **attributes)


def test_a_gate_is_not_broadcast(run_node: Node) -> None:
    with pytest.raises(SlimlineError, match="shape"):
        run_node("SwiGLU", [X, X[:1]], opset=28)
