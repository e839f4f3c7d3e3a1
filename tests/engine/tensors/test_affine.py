"""Affine quantization against torch's and its own laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker.engine.tensors.affine import IntegerRange, affine_parameters, dequantize, quantize, symmetric_scale

U8 = IntegerRange.of(8, signed=False)
S8 = IntegerRange.of(8, signed=True, symmetric=True)
FLOATS = st.floats(-1e4, 1e4, width=32)


def test_ranges() -> None:
    assert IntegerRange.of(8, signed=False) == IntegerRange(0, 255)
    assert IntegerRange.of(8, signed=True) == IntegerRange(-128, 127)
    assert IntegerRange.of(4, signed=True, symmetric=True) == IntegerRange(-7, 7)


def test_same_numbers_as_torchs_fake_quantization() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    scale, zero_point = affine_parameters(float(values.min()), float(values.max()), U8, symmetric=False)
    expected = torch.fake_quantize_per_tensor_affine(torch.from_numpy(values), scale, zero_point, 0, 255).numpy()
    got = dequantize(quantize(values, scale, zero_point, U8), scale, zero_point)
    assert np.mean(np.isclose(got, expected, atol=1e-6)) > 0.999  # a tie may fall the other way: torch multiplies
    assert np.abs(got - expected).max() <= scale * 1.001


def test_rounding_is_half_to_even() -> None:
    assert quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), 1.0, 0, S8).tolist() == [0, 2, 2, 0, -2]


@given(low=FLOATS, high=FLOATS)
def test_zero_is_exact(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    scale, zero_point = affine_parameters(low, high, U8, symmetric=False)
    assert 0 <= zero_point <= 255
    assert dequantize(quantize(np.zeros(1, np.float32), scale, zero_point, U8), scale, zero_point)[0] == 0


@given(hnp.arrays(np.float32, (3, 5), elements=FLOATS))
def test_symmetric_error_is_at_most_half_a_step_per_channel(weight: np.ndarray) -> None:
    scale = symmetric_scale(weight, (0,))
    assert scale.shape == (3, 1)
    restored = dequantize(quantize(weight, scale, 0, S8), scale, 0)
    assert np.all(np.abs(restored - weight) <= scale * 0.5 * (1 + 1e-4))


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = np.array([[0, 0], [1, -2]], np.float32)
    scale = symmetric_scale(weight, (0,))
    assert scale[0] == 1
    assert np.array_equal(dequantize(quantize(weight, scale, 0, S8), scale, 0)[0], [0, 0])


def test_symmetric_range_has_its_zero_in_the_middle() -> None:
    scale, zero_point = affine_parameters(-1.0, 3.0, U8, symmetric=True)
    assert zero_point == 128
    assert scale == pytest.approx(6 / 255)
