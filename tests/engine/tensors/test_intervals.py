"""Intervals against SciPy's."""

import numpy as np
import pytest

from worker.engine.tensors.intervals import bootstrap_ratio, mean_ratio, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (955, 1000), (1, 3)])
def test_wilson_is_scipys(successes: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    low, high = bootstrap_ratio(values, np.ones_like(values))
    half = 1.96 * values.std() / np.sqrt(values.size)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_bootstrap_is_the_same_for_a_seed() -> None:
    values = np.arange(20.0)
    assert bootstrap_ratio(values, values + 1, seed=3) == bootstrap_ratio(values, values + 1, seed=3)


def test_columns_without_a_denominator_are_left_out() -> None:
    assert mean_ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])) == 0.5
    assert mean_ratio(np.zeros(2), np.zeros(2)) == 0
