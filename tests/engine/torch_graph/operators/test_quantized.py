"""Integer products beyond the official node tests: long sums, zero points by row and channel, padding, autocast."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from worker.engine.torch_graph.kernels.integer_arithmetic import multiply

Node = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)


def codes(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.asarray(RNG.integers(limits.min, limits.max + 1, shape)).astype(dtype)


@pytest.mark.parametrize("terms", [0, 1, 300, 70_000])
def test_sums_are_exact_and_wrap_at_32_bits(terms: int, run_node: Node) -> None:
    a, b = np.full((2, terms), 255, np.uint8), np.full((terms, 3), 255, np.uint8)
    zero = np.array(0, np.uint8)
    (total,) = run_node("MatMulInteger", [a, b, zero, zero])
    assert total.dtype == np.int32
    assert (total == np.int64(terms * 255 * 255).astype(np.int32)).all()


def test_a_vector_of_zero_points_is_per_row_and_per_column(run_node: Node) -> None:
    a, b = codes(np.uint8, 3, 3), codes(np.int8, 3, 3)
    rows, columns = codes(np.uint8, 3), codes(np.int8, 3)
    (total,) = run_node("MatMulInteger", [a, b, rows, columns])
    assert (total == (a.astype(int) - rows[:, None]) @ (b.astype(int) - columns)).all()


def test_autocast_rounds_nothing() -> None:
    a, b = (torch.from_numpy(codes(np.int8, 4, 4)) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert multiply(a, b, None, None).long().equal(a.long() @ b.long())


@pytest.mark.parametrize(
    "window", [{"pads": [1, 2, 0, 1]}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"dilations": [2, 1]}]
)
@pytest.mark.parametrize("channels", [2, 60])
def test_convolutions_pad_with_the_zero_point(window: dict, channels: int, expect_node: Node) -> None:
    x, weight = codes(np.uint8, 2, channels, 6, 7), codes(np.int8, 4, channels // 2, 3, 2)
    zeros = np.array(131, np.uint8), np.array(-3, np.int8)
    options = {"kernel_shape": [3, 2], "group": 2, "rtol": 0, "atol": 0} | window
    expect_node("ConvInteger", [x, weight, *zeros], **options)
    scales = np.array(0.02, np.float32), RNG.uniform(0.01, 0.1, 4).astype(np.float32), np.array(3, np.float32)
    inputs = [x, scales[0], zeros[0], weight, scales[1], np.full(4, -3, np.int8), scales[2], np.array(7, np.uint8)]
    expect_node("QLinearConv", [*inputs, RNG.integers(-(2**20), 2**20, 4).astype(np.int32)], **options)


def test_scales_by_row_and_column_requantize(run_node: Node) -> None:
    a, b = codes(np.uint8, 3, 5), codes(np.int8, 5, 2)
    rows, columns = np.array([0.1, 0.2, 0.3], np.float32), np.array([0.1, 0.02], np.float32)
    zeros = np.full(3, 9, np.uint8), np.zeros(2, np.int8), np.array(-5, np.int8)
    (result,) = run_node("QLinearMatMul", [a, rows, zeros[0], b, columns, zeros[1], np.array(2, np.float32), zeros[2]])
    product = (a.astype(int) - 9) @ b.astype(int) * rows[:, None].astype(float) * columns / 2 - 5
    assert (result == np.clip(np.rint(product), -128, 127)).all()
