"""Arithmetic of label arrays: which scale belongs to which element of a tensor. No graph and no numbers of weights.

A label is the number of a scale; 0 stands for the scale 1. The labels of a tensor broadcast against its shape, aligned
at the last axis: a convolution's output [N, C, H, W] has labels [C, 1, 1]. What does not fit gives None.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worker.engine.graph.shapes import Dims

Labels = NDArray[np.int64]
FIXED: Labels = np.zeros((), np.int64)


def with_rank(labels: Labels, rank: int) -> Labels | None:
    """The labels with axes of size 1 put before them, or taken away."""
    extra = labels.ndim - rank
    if any(size > 1 for size in labels.shape[: max(extra, 0)]):
        return None
    return labels.reshape((1,) * max(-extra, 0) + labels.shape[max(extra, 0) :])


def along(labels: Labels, axis: int, size: int) -> Labels | None:
    """The labels [size] of `axis`, counted from the end; None where they vary along another axis too."""
    full = with_rank(labels, max(labels.ndim, -axis))
    if full is None or full.size != full.shape[axis] or full.shape[axis] not in (1, size):
        return None
    return np.broadcast_to(full.reshape(-1), (size,))


def across(labels: Labels, axis: int, rank: int) -> Labels:
    """Labels [size] of one axis of a tensor of `rank`; `axis` counts from the start."""
    return labels.reshape((-1,) + (1,) * (rank - 1 - axis))


def varies(labels: Labels, axis: int, rank: int) -> bool:
    """Whether the labels of a tensor of `rank` differ along `axis`, which may be negative."""
    from_end = axis - rank if axis >= 0 else axis
    return labels.ndim >= -from_end and labels.shape[from_end] > 1


def fit(labels: Labels, shape: Sequence[int]) -> bool:
    """Whether every element of an array of `shape` has one label."""
    try:
        return np.broadcast_shapes(labels.shape, tuple(shape)) == tuple(shape)
    except ValueError:
        return False


def reshaped(labels: Labels, before: Dims, after: Dims) -> Labels | None:
    """The labels after a reshape of dimensions `before` into `after`; equal names stand for equal sizes."""
    full = with_rank(labels, len(before))
    if full is None:
        return None
    source, target = [1] * len(before), [1] * len(after)
    for old, new in _segments(before, after):
        if any(full.shape[i] > 1 for i in old):
            for sizes, dims, places in ((source, before, old), (target, after, new)):
                for i in places:
                    sizes[i] = _size(dims[i])
    if any(size > 1 and source[i] != size for i, size in enumerate(full.shape)):
        return None
    return _compact(np.broadcast_to(full, source).reshape(target))


def concatenated(parts: Sequence[Labels], axis: int, sizes: Sequence[int]) -> Labels:
    """The labels, of one rank, joined along `axis`, of which the parts have `sizes`; other axes must be alike."""
    shapes = [np.delete(part.shape, axis) for part in parts]
    common = np.broadcast_shapes(*map(tuple, shapes))
    full = [
        np.broadcast_to(part, (*common[:axis], size, *common[axis:])) for part, size in zip(parts, sizes, strict=True)
    ]
    return np.concatenate(full, axis)


def _segments(before: Dims, after: Dims) -> list[tuple[range, range]]:
    """Runs of axes of the same number of elements, from the end and, where it goes no further, from the start."""
    found, left, right = [], len(before), len(after)
    while (step := _first_run(before[:left][::-1], after[:right][::-1])) is not None:
        found.append((range(left - step[0], left), range(right - step[1], right)))
        left, right = left - step[0], right - step[1]
    start = end = 0
    while (step := _first_run(before[start:left], after[end:right])) is not None:
        found.append((range(start, start + step[0]), range(end, end + step[1])))
        start, end = start + step[0], end + step[1]
    return found


def _first_run(before: Dims, after: Dims) -> tuple[int, int] | None:
    """How many dimensions of each side, at their start, multiply to the same; None where unknown."""
    if not before or not after:
        return None
    if before[0] is not None and before[0] == after[0]:
        return 1, 1
    ends, products = [0, 0], [0, 0]
    for side, dims in enumerate((before, after)):
        if not isinstance(dims[0], int) or dims[0] < 1:
            return None
        ends[side], products[side] = 1, dims[0]
    while products[0] != products[1]:
        side = int(products[1] < products[0])
        dims = (before, after)[side]
        size = dims[ends[side]] if ends[side] < len(dims) else None
        if not isinstance(size, int) or size < 1:
            return None
        ends[side], products[side] = ends[side] + 1, products[side] * size
    return ends[0], ends[1]


def _size(dim: int | str | None) -> int:
    return dim if isinstance(dim, int) else 1


def _compact(labels: Labels) -> Labels:
    """Axes along which nothing varies become 1."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis)
        if (labels == first).all():
            labels = first
    return labels
