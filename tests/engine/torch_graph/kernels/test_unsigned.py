import numpy as np
import pytest
import torch

from worker.engine.torch_graph.kernels import unsigned

TYPES = [np.uint16, np.uint32, np.uint64]


def _edges(dtype: type) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.array([0, 1, 2, 3, 7, top // 2, top // 2 + 1, top // 2 + 2, top - 1, top], dtype)


def _pairs(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    edges = _edges(dtype)
    return np.repeat(edges, len(edges)), np.tile(edges, len(edges))


@pytest.mark.parametrize("dtype", TYPES)
def test_quotient_and_remainder_are_numpys(dtype: type) -> None:
    a, b = _pairs(dtype)
    a, b = a[b != 0], b[b != 0]
    np.testing.assert_array_equal(unsigned.quotient(torch.from_numpy(a), torch.from_numpy(b)).numpy(), a // b)
    np.testing.assert_array_equal(unsigned.remainder(torch.from_numpy(a), torch.from_numpy(b)).numpy(), a % b)


@pytest.mark.parametrize("dtype", TYPES)
def test_shifts_are_numpys(dtype: type) -> None:
    a, steps = _pairs(dtype)
    left = unsigned.shift_left(torch.from_numpy(a), torch.from_numpy(steps))
    right = unsigned.shift_right(torch.from_numpy(a), torch.from_numpy(steps))
    np.testing.assert_array_equal(left.numpy(), np.left_shift(a, steps))
    np.testing.assert_array_equal(right.numpy(), np.right_shift(a, steps))
