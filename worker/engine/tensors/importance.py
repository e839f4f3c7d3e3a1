"""Importance of the slices of an array along one axis, from the weights alone. Which slices go is decided elsewhere.

Sums over slices, not roots or means of them: those of the arrays that a unit couples add up to the unit's own, as in
DepGraph (Fang et al. 2023). All are in float64, whatever the type of the weights. Legend: C slices.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Scores = NDArray[np.float64]
_PART = 1 << 22
"""Elements made in float64 at a time."""


def l1(weight: Floats, axis: int) -> Scores:
    """The sum of |w| over each slice, [C] (Li et al. 2017); of the scales of a BatchNorm, Liu et al. 2017."""
    return np.concatenate([np.abs(part).sum(axis=1) for part in _parts(weight, axis)] or [np.zeros(0)])


def l2(weight: Floats, axis: int) -> Scores:
    """The sum of w^2 over each slice, [C]: the square of its l2 norm."""
    return np.concatenate([np.square(part).sum(axis=1) for part in _parts(weight, axis)] or [np.zeros(0)])


def fpgm(weight: Floats, axis: int) -> Scores:
    """The sum of each slice's Euclidean distances to all others, [C] (He et al. 2019): low near the geometric median.

    Distances of nearly equal slices are right to about 1e-8 of the slices' norm. Beside a copy of `weight` where its
    axes have to be moved, memory stays around 100 MB up to ten thousand slices.
    """
    rows = _rows(weight, axis)
    norms = l2(weight, axis)
    height = _height(len(rows))
    parts = []
    for start in range(0, len(rows), height):
        squares = norms[start : start + height, None] + norms - 2 * _products(rows, start, start + height)
        diagonal = np.arange(len(squares))
        squares[diagonal, start + diagonal] = 0
        parts.append(np.sqrt(np.maximum(squares, 0)).sum(axis=1))
    return np.concatenate(parts or [np.zeros(0)])


def random(count: int, seed: int) -> Scores:
    """Scores drawn evenly from 0 to 1, [`count`]: the baseline that a criterion has to beat."""
    return np.random.default_rng(seed).random(count)


def _products(rows: Floats, start: int, stop: int) -> Scores:
    """The inner products of slices `start` to `stop` with all, added up over parts of their elements."""
    width = _height(len(rows))
    products = np.zeros((len(rows[start:stop]), len(rows)))
    for first in range(0, rows.shape[1], width):
        part = rows[:, first : first + width].astype(np.float64)
        products += part[start:stop] @ part.T
    return products


def _parts(weight: Floats, axis: int) -> Iterator[Scores]:
    """The slices as rows in float64, some at a time."""
    rows = _rows(weight, axis)
    height = _height(rows.shape[1])
    for start in range(0, len(rows), height):
        yield rows[start : start + height].astype(np.float64)


def _rows(weight: Floats, axis: int) -> Floats:
    moved = np.moveaxis(weight, axis, 0)
    return moved.reshape(len(moved), -1) if moved.size else np.zeros((len(moved), 0), weight.dtype)


def _height(width: int) -> int:
    return max(1, _PART // max(1, width))
