"""Calibrated ranges against brute force: quantize-dequantize of the values themselves, and a textbook in loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker.engine.tensors.affine import IntegerRange, affine_parameters, dequantize, quantize
from worker.engine.tensors.divergence import Windows, divergences
from worker.engine.tensors.histogram import BINS, Histogram, add
from worker.engine.tensors.ranges import Calibrator, find_range

CALIBRATORS: tuple[Calibrator, ...] = ("minmax", "percentile", "entropy", "mse")
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda rng: rng.normal(size=20_000),
    "relu": lambda rng: np.maximum(rng.normal(size=20_000), 0),
    "relu6": lambda rng: np.clip(5 * rng.normal(size=20_000), 0, 6),
    "laplace": lambda rng: rng.laplace(size=20_000),
    "skewed": lambda rng: rng.lognormal(size=20_000) - 0.3,
    "outliers": lambda rng: np.append(rng.normal(size=20_000), [-40.0, 55.0]),
    "negative": lambda rng: -rng.exponential(size=20_000),
}


@pytest.fixture(params=DISTRIBUTIONS)
def values(request: pytest.FixtureRequest) -> np.ndarray:
    return DISTRIBUTIONS[request.param](np.random.default_rng(0)).astype(np.float32)


def count(*parts: np.ndarray) -> Histogram:
    histogram = Histogram.empty()
    for part in parts:
        histogram = add(histogram, torch.from_numpy(np.asarray(part, np.float32)))
    return histogram


def error(values: np.ndarray, low: float, high: float, bits: int, *, symmetric: bool) -> float:
    """Mean squared error of what a quantized tensor stands for."""
    integers = IntegerRange.of(bits, signed=symmetric, symmetric=symmetric)
    scale, zero_point = affine_parameters(low, high, integers, symmetric=symmetric)
    restored = dequantize(quantize(values, scale, zero_point, integers), scale, zero_point)
    return float(np.mean((restored - values.astype(np.float64)) ** 2))


@pytest.mark.parametrize("bits", [4, 8])
def test_mse_is_near_the_best_of_all_asymmetric_ranges(values: np.ndarray, bits: int) -> None:
    low, high = find_range(count(*np.array_split(values, 3)), "mse", levels=2**bits, symmetric=False)
    shares = np.linspace(0.04, 1, 25) ** 1.5
    best = min(
        error(values, min(values.min(), 0) * below, max(values.max(), 0) * above, bits, symmetric=False)
        for below in (shares if values.min() < 0 else [0])
        for above in (shares if values.max() > 0 else [0])
    )
    assert error(values, low, high, bits, symmetric=False) <= 1.03 * best


@pytest.mark.parametrize("bits", [4, 8])
def test_mse_is_near_the_best_of_all_symmetric_ranges(values: np.ndarray, bits: int) -> None:
    low, high = find_range(count(values), "mse", levels=2**bits - 1, symmetric=True)
    assert low == -high
    reaches = np.abs(values).max() * np.linspace(0.01, 1, 300)
    best = min(error(values, -reach, reach, bits, symmetric=True) for reach in reaches)
    assert error(values, low, high, bits, symmetric=True) <= 1.02 * best


def test_mse_of_a_known_distribution() -> None:
    """Optimal uniform quantizers of a Laplacian with scale 1: Banner et al. 2019, ACIQ, table 1 (alpha = 5.03)."""
    laplacian = np.random.default_rng(0).laplace(size=400_000)
    _, high = find_range(count(laplacian), "mse", levels=15, symmetric=True)
    assert high == pytest.approx(5.03, rel=0.05)


def test_mse_keeps_a_value_that_comes_often() -> None:
    assert find_range(count(np.array([0, 0, 1, 1, 1, 0.5])), "mse", levels=256, symmetric=False) == (0.0, 1.0)
    assert find_range(count(DISTRIBUTIONS["relu6"](np.random.default_rng(0))), "mse", levels=256, symmetric=False) == (
        0.0,
        6.0,
    )


def textbook(counts: np.ndarray, begin: int, end: int, levels: int) -> float:
    """Migacz 2017, slide 38 and following, for the bins from `begin` to `end`."""
    reference = counts[begin:end].astype(np.float64)
    reference[0] += counts[:begin].sum()
    reference[-1] += counts[end:].sum()
    quantized = np.zeros(end - begin)
    for level in range(levels):
        first, last = level * (end - begin) // levels, (level + 1) * (end - begin) // levels
        part = counts[begin:end][first:last]
        if part.any():
            quantized[first:last] = np.where(part > 0, part.sum() / np.count_nonzero(part), 0)
    reference, quantized = reference / reference.sum(), quantized / quantized.sum()
    divergence = 0.0
    for p, q in zip(reference, quantized, strict=True):
        if p > 0:
            divergence += p * np.log(p / q) if q > 0 else np.inf
    return divergence


@given(hnp.arrays(np.int64, 48, elements=st.integers(0, 4)), st.integers(2, 8), st.integers(8, 24), st.integers(32, 48))
def test_divergence_is_the_textbooks(counts: np.ndarray, levels: int, begin: int, end: int) -> None:
    counts[begin] = max(counts[begin], 1)
    found = divergences(counts, Windows(np.array([begin, 0]), np.array([end, 48])), levels)
    assert found == pytest.approx([textbook(counts, begin, end, levels), textbook(counts, 0, 48, levels)], abs=1e-9)


@pytest.mark.parametrize("levels", [16, 256])
def test_entropy_finds_what_the_textbook_finds_after_a_relu(levels: int) -> None:
    """One-sided: all levels share the side that has values, and zeros do not drown the rest."""
    rng = np.random.default_rng(1)
    values = np.maximum(np.append(rng.laplace(size=100_000), [30.0]), 0)
    histogram = count(values)
    counts = histogram.counts.copy()
    counts[BINS // 2] = counts[BINS // 2 + 1]
    ends = np.arange(BINS, BINS // 2, -8)[::-1]
    ends = ends[ends - BINS // 2 >= levels]
    best = min(ends, key=lambda end: textbook(counts, BINS // 2, end, levels)) - BINS // 2
    low, high = find_range(histogram, "entropy", levels=levels, symmetric=False)
    assert low == 0
    assert high == pytest.approx(best * 2 * histogram.bound / BINS)
    assert high < 30


def test_entropy_of_both_signs_clips_both_ends_alike() -> None:
    values = np.append(np.random.default_rng(1).laplace(scale=0.2, size=100_000), [-40.0, 30.0])
    low, high = find_range(count(values), "entropy", levels=256, symmetric=False)
    assert low == -high
    assert 1 < high < 4
    low, high = find_range(count(values), "entropy", levels=255, symmetric=True)
    assert low == -high
    assert 1 < high < 4


def test_entropy_keeps_a_short_negative_tail() -> None:
    low, high = find_range(count(np.array([-0.17, *np.linspace(0, 6, 9999)])), "entropy", levels=256, symmetric=False)
    assert low == pytest.approx(-0.17)
    assert high == 6


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("parts", "extremes"),
    [
        ([], (0, 0)),
        ([[0.0, 0.0]], (0, 0)),
        ([[3.0, 3.0]], (0, 3)),
        ([[-3.0]], (-3, 0)),
        ([[0.0], [2**-140]], (0, 2**-140)),
        ([[-2e38, 2e38]], (-2e38, 2e38)),
        ([[np.nan, np.inf, 0.5]], (0, 0.5)),
        ([[1e-6], [-1e6]], (-1e6, 1e-6)),
    ],
)
def test_odd_histograms(
    calibrator: Calibrator, symmetric: bool, parts: list[list[float]], extremes: tuple[float, float]
) -> None:
    low, high = extremes
    wanted = (-max(-low, high), max(-low, high)) if symmetric else extremes
    levels = 256 - symmetric
    assert find_range(count(*map(np.array, parts)), calibrator, levels=levels, symmetric=symmetric) == pytest.approx(
        wanted, rel=1e-6, abs=2e-6 * max(-low, high)
    )


@given(
    hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from(CALIBRATORS),
    st.sampled_from([2, 16, 255, 256, 65536]),
    st.booleans(),
)
def test_a_range_holds_0_and_lies_within_the_extremes(
    values: np.ndarray, calibrator: Calibrator, levels: int, symmetric: bool
) -> None:
    low, high = find_range(count(values), calibrator, levels=levels, symmetric=symmetric, percentile=99)
    largest = float(np.abs(values).max())
    bottom, top = (-largest, largest) if symmetric else (min(values.min(), 0), max(values.max(), 0))
    assert bottom <= low <= 0 <= high <= top
    assert high > low or largest < 1e-25
