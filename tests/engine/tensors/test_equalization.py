"""Scales that bring the ranges of neighbouring layers together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.tensors.equalization import balancing_scales

RANGES = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=1, max_size=8)


def test_by_hand() -> None:
    assert balancing_scales(np.array([8.0, 1.0]), np.array([2.0, 4.0])).tolist() == [2.0, 0.5]


def test_a_dead_channel_stays() -> None:
    assert balancing_scales(np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0])).tolist() == [1.0, 1.0, 1.0]
    assert balancing_scales(np.zeros(2), np.zeros(2)).tolist() == [1.0, 1.0]


@given(RANGES)
def test_both_sides_get_the_geometric_mean(rows: list[tuple[float, float]]) -> None:
    before, after = np.array(rows).T
    scales = balancing_scales(before, after)
    np.testing.assert_allclose(before / scales, np.sqrt(before * after), rtol=1e-9)
    np.testing.assert_allclose(after * scales, np.sqrt(before * after), rtol=1e-9)
