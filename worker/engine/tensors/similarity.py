"""How close two arrays are: signal-to-noise ratio, cosine, agreement of the arg-max. Axis 0 counts samples."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def noise_energy(reference: Floats, other: Floats) -> tuple[float, float]:
    """Energy of `reference` and of `reference - other`, in float64, so that batches can be summed."""
    signal = reference.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.sum(signal**2)), float(np.sum((signal - other) ** 2))


def decibels(signal: float, noise: float) -> float | None:
    """Signal-to-noise ratio of two energies, dB; None without noise, -inf without signal."""
    if noise == 0:
        return None
    return 10 * float(np.log10(signal / noise)) if signal > 0 else -np.inf


def sqnr_db(reference: Floats, other: Floats) -> float | None:
    """Signal-to-quantization-noise ratio, dB; None when the arrays are equal."""
    return decibels(*noise_energy(reference, other))


def cosines(reference: Floats, other: Floats) -> NDArray[np.float64]:
    """Cosine similarity of each sample, shape [N]; 1 where both are all zero, 0 where only one is."""
    a = reference.reshape(len(reference), -1).astype(np.float64)
    b = other.reshape(len(other), -1).astype(np.float64)
    dot = np.sum(a * b, axis=1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_zero, 1.0, np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0))


def agreements(reference: Floats, other: Floats, axis: int) -> NDArray[np.bool_]:
    """Where the arg-max along `axis` is the same; the shape of the arrays without that axis."""
    same: NDArray[np.bool_] = reference.argmax(axis=axis) == other.argmax(axis=axis)
    return same
