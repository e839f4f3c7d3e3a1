"""Smooth noise: its spectrum, its variance."""

import numpy as np
import pytest

from worker.engine.synthesis.noise import recorded_noise, smooth_noise


def test_the_spectrum_falls_as_in_natural_images() -> None:
    noise = smooth_noise((400, 64), [1], np.random.default_rng(0))
    power = (np.abs(np.fft.rfft(noise)) ** 2).mean(0)[1:]
    slope = np.polyfit(np.log(np.arange(1, 33)), np.log(power), 1)[0]
    assert slope == pytest.approx(-2, abs=0.15)
    assert noise.std(1) == pytest.approx(1, abs=1e-3)


def test_without_axes_it_is_white() -> None:
    noise = smooth_noise((4000, 6), [], np.random.default_rng(0))
    assert np.cov(noise.T) == pytest.approx(np.eye(6), abs=0.08)


def test_colours_are_alike_but_not_equal() -> None:
    noise = recorded_noise((300, 3, 16, 16), [2, 3], 1, np.random.default_rng(0))
    colours = noise.transpose(1, 0, 2, 3).reshape(3, -1)
    correlation = np.corrcoef(colours)
    assert correlation[~np.eye(3, dtype=bool)] == pytest.approx(0.8, abs=0.05)
    assert noise.dtype == np.float32


def test_single_elements_and_scalars_are_finite() -> None:
    for shape in ((), (4,), (4, 3, 1, 1), (2, 1, 5)):
        noise = recorded_noise(shape, list(range(2, len(shape))), None, np.random.default_rng(0))
        assert noise.shape == shape
        assert np.isfinite(noise).all()
