"""Weights and biases as integers: errors bounded by the step, biases that fit, searched scales that err less."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.contracts.recipe.quantize_static import WeightQuantization
from worker.engine.quantization.integer_weights import (
    WeightRequest,
    smallest_scale_for,
    to_integer_bias,
    to_integers,
)

WEIGHTS = hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32))


def request(axis: int = 0, bits: int = 8, **options: object) -> WeightRequest:
    how = WeightQuantization.model_validate(
        {key: options.pop(key) for key in ("symmetric", "per_channel") if key in options}
    )
    return WeightRequest(how, bits, bits, axis, np.zeros(3), bool(options.get("is_searched")))


@given(WEIGHTS, st.sampled_from([4, 8]))
def test_a_channel_errs_by_half_its_step(weight: np.ndarray, bits: int) -> None:
    stored = to_integers(weight, request(bits=bits))
    steps = np.abs(weight).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert (np.abs(stored.floats() - weight) <= steps / 2 + 1e-5 * np.abs(weight).max(initial=1)).all()


@given(WEIGHTS)
def test_one_scale_and_a_zero_point(weight: np.ndarray) -> None:
    stored = to_integers(weight, request(symmetric=False, per_channel=False))
    step = (max(weight.max(), 0) - min(weight.min(), 0)) / 255
    assert stored.scale.shape == ()
    assert (np.abs(stored.floats() - weight) <= step + 1e-4).all()


def test_a_search_errs_less_than_the_widest_scale() -> None:
    weight = np.random.default_rng(0).standard_normal((3, 4000)).astype(np.float32)
    plain, searched = (to_integers(weight, request(bits=4, is_searched=each)) for each in (False, True))
    errors = [np.square(each.floats() - weight).sum(axis=1) for each in (plain, searched)]
    assert (errors[1] < 0.9 * errors[0]).all()


@pytest.mark.parametrize("largest", [1e-30, 1.0, 1e6])
def test_a_bias_always_fits(largest: float) -> None:
    weight = np.full((3, 4), 1e-12, np.float32)
    weight[2] = 0
    bias = np.array([0.5, -1.0, 1.0]) * largest
    smallest = smallest_scale_for(bias, 0.02, 3)
    stored = to_integers(weight, WeightRequest(WeightQuantization(), 8, 8, 0, smallest))
    codes, scales = to_integer_bias(bias, 0.02, stored)
    assert codes * scales.astype(np.float64) == pytest.approx(bias, rel=1e-3)


def test_7_bits_leave_room_for_sums() -> None:
    weight = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    stored = to_integers(weight, WeightRequest(WeightQuantization(), 8, 7, 0, np.zeros(3)))
    assert stored.codes.dtype == np.int8
    assert np.abs(stored.codes).max() == 63
