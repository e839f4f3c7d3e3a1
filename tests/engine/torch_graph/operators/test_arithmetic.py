from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

Node = Callable[..., list[np.ndarray]]
WHOLE = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


def _numbers(dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.array([limits.min, limits.max, limits.max // 2 + 1, 5, 0, limits.max - 1, 7, 100], dtype)


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Min", "Max", "BitwiseXor"])
def test_whole_numbers_wrap_and_order_as_in_onnx(op: str, dtype: type, expect_node: Node) -> None:
    numbers = _numbers(dtype)
    expect_node(op, [numbers, numbers[::-1].copy()])


@pytest.mark.parametrize("dtype", WHOLE)
def test_division_of_whole_numbers_truncates(dtype: type, expect_node: Node) -> None:
    divisors = np.array([3, 5, 100, 2, 9, 7, 127, 1], dtype)
    expect_node("Div", [_numbers(dtype), divisors])
    expect_node("Mod", [_numbers(dtype), divisors])
    expect_node("Mod", [_numbers(dtype), divisors], fmod=1)
    if np.iinfo(dtype).min < 0:
        expect_node("Mod", [_numbers(dtype), -divisors])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_smallest_number_by_minus_one_does_not_end_the_process(dtype: type, run_node: Node) -> None:
    smallest = np.iinfo(dtype).min
    (got,) = run_node("Div", [np.array([smallest, 7], dtype), np.array([-1, -1], dtype)])
    assert got.tolist() == [smallest, -7]


def test_division_by_zero_names_the_node(run_node: Node) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node("Div", [np.array([1, 2]), np.array([1, 0])])
    assert refusal.value.failure.node == "Div"


@pytest.mark.parametrize(
    ("base", "exponent"),
    [(np.int32, np.float32), (np.int64, np.float64), (np.float32, np.int64), (np.float16, np.float32)],
)
def test_a_power_has_the_type_of_its_base(base: type, exponent: type, expect_node: Node) -> None:
    expect_node("Pow", [np.array([3, 7, 2], base), np.array([3, 2, 5], exponent)])


def test_a_power_of_minus_one_keeps_its_sign_for_large_whole_exponents(run_node: Node) -> None:
    (got,) = run_node("Pow", [np.full(2, -1, np.float32), np.array([2**24 + 1, 2**24])])
    assert got.tolist() == [-1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint64])
def test_clip_gives_the_upper_limit_where_limits_cross(dtype: type, expect_node: Node) -> None:
    low, high = np.array(6, dtype), np.array(3, dtype)
    (got,) = expect_node("Clip", [np.array([1, 4, 9], dtype), low, high])
    assert got.tolist() == [3, 3, 3]


def test_clip_had_its_limits_as_attributes(run_node: Node) -> None:
    (got,) = run_node("Clip", [np.array([-2, 0.5, 9], np.float32)], opset=9, min=-1.0)
    assert got.tolist() == [-1, 0.5, 9]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts_by_the_width_and_more_leave_nothing(dtype: type, direction: str, expect_node: Node) -> None:
    steps = np.array([0, 1, 7, 8, 16, 32, 64, 200], dtype)
    expect_node("BitShift", [np.full(8, 201, dtype), steps], opset=11, direction=direction)


@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
@pytest.mark.parametrize("shape", [(3, 4), (2, 0)])
def test_cumulative_of_unsigned_and_empty(op: str, shape: tuple[int, ...], expect_node: Node) -> None:
    x = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape) * 2**29
    expect_node(op, [x, np.array(1)], opset=26, exclusive=1, reverse=1)


def test_rounding_is_half_to_even(run_node: Node) -> None:
    (got,) = run_node("Round", [np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)])
    assert got.tolist() == [0, 2, 2, 0, -2]


def test_gradient_of_a_clipped_power() -> None:
    x = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    text = """<ir_version: 10, opset_import: ["" : 20]> g (double[N] x) => (y) <double low = {1.0}, double two = {2.0}>
    { p = Pow(x, two) y = Clip(p, low) }"""
    module = TorchGraph(Graph.from_proto(onnx.parser.parse_model(text)))
    assert torch.autograd.gradcheck(module, x)
