"""SmoothQuant's scales against the formula of the paper."""

import numpy as np
import pytest

from worker.engine.tensors.smoothing import smoothing_scales

X, W = np.array([16.0, 1.0, 100.0]), np.array([1.0, 4.0, 25.0])


def test_half_the_difficulty_moves() -> None:
    scales = smoothing_scales(X, W)
    np.testing.assert_allclose(scales, [4, 0.5, 2])
    np.testing.assert_allclose(X / scales, W * scales)


@pytest.mark.parametrize(
    ("strength", "uniform"), [(1.0, X / smoothing_scales(X, W, 1)), (0.0, W * smoothing_scales(X, W, 0))]
)
def test_at_the_ends_one_side_becomes_uniform(strength: float, uniform: np.ndarray) -> None:
    assert np.ptp(uniform) == pytest.approx(0), strength


def test_channels_without_a_range_stay() -> None:
    x, w = np.array([0.0, 4, np.inf, np.nan, 4]), np.array([4.0, 0, 4, 4, 1])
    assert smoothing_scales(x, w).tolist() == [1, 1, 1, 1, 2]


def test_scales_are_bounded() -> None:
    assert smoothing_scales(np.array([1e20, 1e-20]), np.ones(2)).tolist() == [1e4, 1e-4]
