"""Labels of indices, and which of them are one. No graph here.

A label stands for one index of one dimension of a tensor. Labels that are united live and die together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Axes = Sequence[Labels]
"""The labels of a tensor: for every dimension one label for each index."""


class Unions:
    """Labels are handed out and united; what is one is worked out once, at the end."""

    def __init__(self) -> None:
        self.count = 0
        self._pairs: list[tuple[Labels, Labels]] = []
        self._stops: dict[int, tuple[bool, int]] = {}

    def fresh(self, size: int) -> Labels:
        """New labels [size], each alone."""
        labels = np.arange(self.count, self.count + size)
        self.count += size
        return labels

    def unite(self, first: Labels, second: Labels) -> None:
        """The labels at the same places become one; the arrays broadcast."""
        if first is not second:
            pair = np.broadcast_arrays(first, second)
            self._pairs.append((pair[0].ravel(), pair[1].ravel()))

    def stop(self, *, is_weak: bool = False) -> int:
        """A label that stands for no index: what is united with it cannot go, but does not become one by that.

        A weak one is told only where there is no other.
        """
        label = int(self.fresh(1)[0])
        self._stops[label] = (is_weak, label)
        return label

    def components(self) -> tuple[Labels, dict[int, int]]:
        """For every label the least of its set, [count], and for sets that cannot go the first stop of each.

        Roots of united labels hook onto the lower one, then paths are halved, until nothing moves (Shiloach and
        Vishkin 1982): a few passes over all pairs, where a loop over single labels would be a hundred times slower.
        """
        sides = list(zip(*self._pairs, strict=True)) or [(), ()]
        first, second = (np.concatenate([np.zeros(0, np.int64), *side]) for side in sides)
        is_stop = np.zeros(self.count + 1, np.bool_)
        is_stop[list(self._stops)] = True
        joins = ~is_stop[first] & ~is_stop[second]
        roots = _find_roots(self.count, first[joins], second[joins])
        stops = {stop: stop for stop in self._stops}
        for stopped, stop in ((first, second), (second, first)):
            chosen = is_stop[stop] & ~is_stop[stopped]
            pairs = np.unique(np.stack([roots[stopped[chosen]], stop[chosen]], axis=1), axis=0)
            for component, label in pairs[::-1].tolist():
                stops[component] = min(label, stops.get(component, label), key=self._stops.__getitem__)
        return roots, stops


def _find_roots(count: int, first: Labels, second: Labels) -> Labels:
    roots = np.arange(count)
    while True:
        low, high = np.minimum(roots[first], roots[second]), np.maximum(roots[first], roots[second])
        apart = low != high
        if not apart.any():
            return roots
        first, second = first[apart], second[apart]
        np.minimum.at(roots, high[apart], low[apart])
        while (roots[roots] != roots).any():
            roots = roots[roots]
