"""Streaming histograms against NumPy's percentiles, and that streaming changes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker.engine.tensors.histogram import BINS, Histogram, add, central_range

VALUES = hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32))


def stream(*parts: np.ndarray) -> Histogram:
    histogram = Histogram.empty()
    for part in parts:
        histogram = add(histogram, torch.from_numpy(part))
    return histogram


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_nothing_is_lost_and_the_extremes_are_exact(parts: list[np.ndarray]) -> None:
    histogram, everything = stream(*parts), np.concatenate(parts)
    assert histogram.counts.sum() == everything.size
    assert (histogram.low, histogram.high) == (everything.min(), everything.max())
    assert histogram.bound >= np.abs(everything).max()


def test_percentiles_are_numpys_to_two_bins() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    histogram = stream(*np.array_split(values, 7))
    low, high = central_range(histogram, 99.0)
    width = 2 * histogram.bound / BINS
    assert low == pytest.approx(np.percentile(values, 0.5), abs=2 * width)
    assert high == pytest.approx(np.percentile(values, 99.5), abs=2 * width)


def test_a_growing_range_merges_bins() -> None:
    small, large = np.full(100, 0.001, np.float32), np.array([1000.0], np.float32)
    histogram = stream(small, large)
    assert histogram.counts.sum() == 101
    assert histogram.counts[BINS // 2] == 100


def test_100_percent_is_the_exact_range_with_zero() -> None:
    assert central_range(stream(np.array([2.0, 5.0], np.float32)), 100) == (0.0, 5.0)
    assert central_range(stream(np.array([-2.0, -1.0], np.float32)), 100) == (-2.0, 0.0)


def test_zeros_first_then_values() -> None:
    histogram = stream(np.zeros(10, np.float32), np.array([3.0], np.float32))
    assert histogram.counts.sum() == 11
    assert histogram.counts[BINS // 2] == 10


def test_infinities_are_counted_apart() -> None:
    histogram = stream(np.array([-np.inf, 1.0, np.nan], np.float32))
    assert histogram.non_finite == 2
    assert central_range(histogram, 100) == (0.0, 1.0)


def test_nothing_seen_is_an_empty_range() -> None:
    assert central_range(Histogram.empty(), 99) == (0.0, 0.0)


def test_the_largest_floats_are_told_apart() -> None:
    histogram = stream(np.array([-3e38, -1e38, 0.0, 3e38], np.float32))
    assert np.flatnonzero(histogram.counts).tolist() == [0, BINS // 3, BINS // 2, BINS - 1]
