"""Cross-layer equalization (Nagel et al. 2019, Data-Free Quantization): channel ranges of neighbours become alike.

Labels are numbers of scales, and broadcast against a layer's weights: a weight is multiplied by the scale of the
channel that it reads and divided by that of the channel that it writes. Number 0 is the scale 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Labels = NDArray[np.int64]

_SMALLEST = 1e-8
"""Weights below this, relative to the layer's largest, count as 0: a channel with no others is dead, and stays."""
_LARGEST_SCALE = 1e4
"""No scale is larger than this or smaller than its inverse: float32 stays far from its ends."""
_MOST_ROUNDS, _CHANGE = 100, 1e-3
"""Rounds over all layers, and the largest relative change of a scale at which they end."""
_DAMPING = 0.75
"""Share of each change that is made: a layer between two scales that change at once would overshoot."""


@dataclass(frozen=True)
class LayerRanges:
    """Absolute weights of a layer, or the largest among those that are labelled alike."""

    magnitudes: Floats
    reads: Labels
    writes: Labels


def largest_by_label(magnitudes: Floats, labels: Labels, count: int) -> Floats:
    """The largest of `magnitudes` with each label, shape [count]; 0 for a label that none has."""
    full = _with_rank(labels, magnitudes.ndim)
    uniform = tuple(axis for axis, size in enumerate(full.shape) if size == 1)
    found = np.zeros(count)
    np.maximum.at(found, full, magnitudes.max(axis=uniform, keepdims=True, initial=0))
    return found


def balancing_scales(range_before: Floats, range_after: Floats) -> NDArray[np.float64]:
    """The s by which channels before are divided and those after multiplied, so that both ranges become their mean.

    The mean is geometric: s = sqrt(before / after), eq. 11 of the paper. Ranges are largest absolute weights; where one
    is 0 the channel stays.
    """
    before, after = range_before.astype(np.float64), range_after.astype(np.float64)
    is_alive = (before > 0) & (after > 0)
    return np.where(is_alive, np.sqrt(np.divide(before, after, out=np.ones_like(before), where=is_alive)), 1.0)


def equalizing_scales(layers: Sequence[LayerRanges], count: int) -> NDArray[np.float64]:
    """The scales [count] with which the layers that write a channel have the range of those that read it.

    Of several layers the geometric mean counts, so that the one with the largest weights does not decide alone. A
    channel that no layer writes, or none reads, stays.
    """
    alive = [_without_dead(each) for each in layers]
    is_balanced = np.all([ranges > 0 for ranges in _mean_ranges(alive, np.ones(count))], axis=0)
    kept = [_keep(each, is_balanced) for each in alive]
    scales = np.ones(count)
    for _ in range(_MOST_ROUNDS):
        change = balancing_scales(*_mean_ranges(kept, scales)) ** _DAMPING
        scales = np.clip(scales * change, 1 / _LARGEST_SCALE, _LARGEST_SCALE)
        if np.abs(change - 1).max() < _CHANGE:
            break
    return scales


def _without_dead(layer: LayerRanges) -> LayerRanges:
    smallest = _SMALLEST * layer.magnitudes.max(initial=0)
    return replace(layer, magnitudes=np.where(layer.magnitudes > smallest, layer.magnitudes, 0))


def _keep(layer: LayerRanges, is_balanced: NDArray[np.bool_]) -> LayerRanges:
    """The layer with labels only where a scale is sought, and magnitudes only as far as labels tell them apart."""
    rank = layer.magnitudes.ndim
    sides = [_with_rank(np.where(is_balanced[each], each, 0), rank) for each in (layer.reads, layer.writes)]
    reads, writes = (each if each.any() else np.zeros((1,) * rank, np.int64) for each in sides)
    uniform = tuple(axis for axis in range(rank) if reads.shape[axis] == writes.shape[axis] == 1)
    return LayerRanges(layer.magnitudes.max(axis=uniform, keepdims=True, initial=0), reads, writes)


def _mean_ranges(layers: Sequence[LayerRanges], scales: Floats) -> tuple[Floats, Floats]:
    """For each channel the geometric mean of the ranges of the layers that write it, and of those that read it.

    0 where none does with a weight other than 0, and for number 0.
    """
    sums, numbers = np.zeros((2, len(scales))), np.zeros((2, len(scales)))
    for layer in layers:
        scaled = layer.magnitudes * scales[layer.reads] / scales[layer.writes]
        for side, labels in enumerate((layer.writes, layer.reads)):
            used, local = np.unique(labels, return_inverse=True)
            ranges = largest_by_label(scaled, local.reshape(labels.shape), len(used))
            sums[side, used] += np.log(ranges, out=np.zeros(len(used)), where=ranges > 0)
            numbers[side, used] += ranges > 0
    numbers[:, 0] = 0
    written, read = np.where(numbers > 0, np.exp(sums / np.maximum(numbers, 1)), 0)
    return written, read


def _with_rank(labels: Labels, rank: int) -> Labels:
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)
