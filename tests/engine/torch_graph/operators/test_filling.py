"""Ranges, one-hot codes and unit matrices: forms that ONNX's own node tests leave out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from app.contracts.failure import SlimlineError

NodeRunner = Callable[..., list[np.ndarray]]


@pytest.mark.parametrize(
    ("start", "limit", "delta", "dtype"),
    [
        (5, 5, 1, np.int64),
        (3, 9, -1, np.int32),
        (9, 2, -3, np.int16),
        (0.1, 1, 0.1, np.float32),
        (1, -2, -0.3, np.float64),
    ],
)
def test_range(expect_node: NodeRunner, start: float, limit: float, delta: float, dtype: Any) -> None:
    expect_node("Range", [np.array(number, dtype) for number in (start, limit, delta)])


def test_float16_range_counts_in_float32(expect_node: NodeRunner) -> None:
    (out,) = expect_node("Range", [np.array(n, np.float16) for n in (0, 3000, 1)], opset=27)
    assert out[2049] == 2048
    assert out[-1] == 3000


def test_range_in_steps_of_nothing_is_refused(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError, match="steps of 0"):
        run_node("Range", [np.array(0), np.array(1), np.array(0)])


def test_negative_indices_of_one_hot_count_back_only_from_opset_11(run_node: NodeRunner) -> None:
    inputs = [np.array([-1, 1]), np.array(3), np.array([0.0, 1.0], np.float32)]
    assert run_node("OneHot", inputs, opset=11)[0].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert run_node("OneHot", inputs, opset=9)[0].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_the_largest_uint64_is_no_index_of_one_hot(run_node: NodeRunner) -> None:
    inputs = [np.array([2**64 - 1], np.uint64), np.array([2]), np.array([5, 7])]
    assert run_node("OneHot", inputs)[0].tolist() == [[5, 5]]


@pytest.mark.parametrize("dtype", [TensorProto.UINT16, TensorProto.BOOL, TensorProto.DOUBLE])
def test_eye_of_another_type(expect_node: NodeRunner, dtype: Any) -> None:
    expect_node("EyeLike", [np.zeros((2, 4), np.float32)], dtype=dtype, k=1)


def test_constant_of_shape_without_dimensions(expect_node: NodeRunner) -> None:
    value = numpy_helper.from_array(np.array([7], np.uint16))
    (out,) = expect_node("ConstantOfShape", [np.zeros(0, np.int64)], value=value)
    assert out.shape == ()
