"""n:m masks: which weights stay of each group of neighbours. No graph, and no choice of what a weight is worth."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


def least_of_groups(scores: Floats, keep: int, group: int, axis: int) -> Mask:
    """True for all but the `keep` highest of every `group` neighbours along `axis`, whose length `group` divides.

    Among equals the earlier ones are True.
    """
    along = np.moveaxis(scores, axis, -1)
    groups = along.reshape(*along.shape[:-1], -1, group)
    ascending = groups.argsort(axis=-1, kind="stable")
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, ascending[..., : group - keep], values=True, axis=-1)
    return np.moveaxis(mask.reshape(along.shape), -1, axis)


def least_of_masked(scores: Floats, mask: Mask, share: float) -> Mask:
    """True for `round(share * count)` of the `count` weights that `mask` has: the lowest, earlier ones among equals."""
    places = np.flatnonzero(mask)
    order = np.argsort(scores.ravel()[places], kind="stable")
    least = np.zeros(mask.size, bool)
    least[places[order[: round(share * len(places))]]] = True
    return least.reshape(mask.shape)
