"""Noise that resembles what is recorded: neighbours are alike, as in pictures and sounds. Pure NumPy."""

from collections.abc import Sequence

import numpy as np

from worker.engine.session import Array

_CONTRAST = 0.3
"""Standard deviation of the logarithm of samples' contrast: pictures and recordings differ in theirs."""
_SHARED = 0.8
"""Correlation of the colours of a pixel."""


def recorded_noise(
    shape: tuple[int, ...], axes: Sequence[int], colours: int | None, generator: np.random.Generator
) -> Array:
    """Smooth noise along `axes`, float32, of about variance 1, each sample with a contrast of its own.

    `colours`: an axis along which it is nearly the same.
    """
    noise = smooth_noise(shape, axes, generator)
    if colours is not None:
        grey = smooth_noise(tuple(1 if axis == colours else size for axis, size in enumerate(shape)), axes, generator)
        noise = np.sqrt(_SHARED) * grey + np.sqrt(1 - _SHARED) * noise
    one_each = [*shape[:1], *[1] * (len(shape) - 1)]
    contrast = np.exp(_CONTRAST * generator.standard_normal(one_each) - _CONTRAST**2)  # of mean square 1
    return np.asarray(noise * contrast, np.float32)


def smooth_noise(shape: tuple[int, ...], axes: Sequence[int], generator: np.random.Generator) -> Array:
    """Normal noise, float32, whose amplitude falls as 1 / frequency along `axes`; without axes it is white.

    So it does in natural images (Field 1987). Over `axes` its variance is 1 everywhere.
    """
    white = generator.standard_normal(shape)
    axes = [axis for axis in axes if shape[axis] > 1]
    if not axes:
        return white.astype(np.float32)
    squares = np.zeros([1] * len(shape))
    for axis in axes:
        along = np.fft.fftfreq(shape[axis]).reshape([-1 if each == axis else 1 for each in range(len(shape))])
        squares = squares + along**2
    lowest = 1 / max(shape[axis] for axis in axes)
    spectrum = np.fft.fftn(white, axes=axes) / np.sqrt(np.maximum(squares, lowest**2))
    noise: Array = np.fft.ifftn(spectrum, axes=axes).real
    noise /= noise.std(axis=tuple(axes), keepdims=True)
    return noise.astype(np.float32)
