from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

Node = Callable[..., list[np.ndarray]]
WHOLE = [np.int32, np.int64, np.uint32, np.uint64]
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum"]
X = np.linspace(0.1, 2.4, 24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("axes", [[0], [-1, 0], [], None])
def test_axes_as_attribute_and_as_input(op: str, axes: list[int] | None, expect_node: Node) -> None:
    given = [] if axes is None else [np.array(axes, np.int64)]
    for keepdims in (0, 1):
        expect_node(f"Reduce{op}", [X, *given], keepdims=keepdims)
        if axes:
            expect_node(f"Reduce{op}", [X], opset=11, axes=axes, keepdims=keepdims)


@pytest.mark.parametrize(("op", "function"), [("Sum", np.copy), ("SumSquare", np.square), ("LogSum", np.log)])
def test_over_no_axes_only_the_reduction_is_left_out(op: str, function: np.ufunc, run_node: Node) -> None:
    (got,) = run_node(f"Reduce{op}", [X], noop_with_empty_axes=1)
    np.testing.assert_allclose(got, function(X), rtol=1e-6)


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("op", ["L1", "L2", "Max", "Mean", "Min", "Prod", "Sum"])
def test_whole_numbers_keep_their_type(op: str, dtype: type, expect_node: Node) -> None:
    numbers = np.array([[3, 8, 5], [0, 2, 4]], dtype)
    expect_node(f"Reduce{op}", [numbers, np.array([1])])
    if op in ("Max", "Min", "Sum", "Prod"):
        expect_node(f"Reduce{op}", [numbers - dtype(3), np.array([1])])


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint64, np.uint8, bool])
def test_extremes_of_nothing_are_the_limits_of_the_type(dtype: type, run_node: Node, expect_node: Node) -> None:
    nothing = np.zeros((2, 0), dtype)
    expect_node("ReduceMax", [nothing, np.array([1])])
    if dtype is bool:
        assert run_node("ReduceMin", [nothing, np.array([1])])[0].tolist() == [[True], [True]]
    else:
        expect_node("ReduceMin", [nothing, np.array([1])])


def test_logarithms_of_whole_numbers_are_refused(run_node: Node) -> None:
    with pytest.raises(SlimlineError, match="logarithms") as refusal:
        run_node("ReduceLogSumExp", [np.array([1, 2])])
    assert refusal.value.failure.code == "OPERATOR_UNSUPPORTED"


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint64, np.int8])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_positions_of_the_first_and_of_the_last(op: str, dtype: type, expect_node: Node) -> None:
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 9
    numbers = np.array([[top, 1, top, 1], [0, 0, 0, 0]], dtype)
    for last in (0, 1):
        expect_node(op, [numbers], axis=-1, keepdims=0, select_last_index=last)


def test_a_vector_of_zeros_has_no_direction_and_no_gradient() -> None:
    text = '<ir_version: 10, opset_import: ["" : 22]> g (float[2, 3] x) => (y) { y = LpNormalization(x) }'
    module = TorchGraph(Graph.from_proto(onnx.parser.parse_model(text)))
    x = torch.tensor([[0.0, 0, 0], [3, 0, 4]], requires_grad=True)
    (y,) = module(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.tensor([[0, 0, 0], [0.6, 0, 0.8]]))
    assert x.grad is not None
    assert x.grad.isfinite().all()
