"""Union-find over the numbers of scales: those that must be equal become one."""

import numpy as np

from worker.engine.quantization.folding.labels import Labels


class Unions:
    """Numbers 0, 1, 2, ... in sets; 0 stands for the scale 1, and what is joined with it is fixed."""

    def __init__(self) -> None:
        self._parents = [0]

    def fresh(self, count: int) -> Labels:
        """`count` new numbers, each a set of its own."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def join(self, first: Labels, second: Labels) -> None:
        """Make the elements of both arrays, broadcast against each other, equal one by one."""
        a, b = np.broadcast_arrays(first, second)
        differ = a != b
        for left, right in np.unique(np.stack([a[differ], b[differ]], 1), axis=0).tolist():
            roots = sorted((self._find(left), self._find(right)))
            self._parents[roots[1]] = roots[0]

    def is_free(self, labels: Labels) -> bool:
        """Whether any of them may be other than 1."""
        return any(self._find(label) for label in np.unique(labels).tolist())

    def numbered(self) -> Labels:
        """For every number that of its set, counted from 0 without gaps; 0 stays 0."""
        roots = np.array([self._find(label) for label in range(len(self._parents))])
        return np.unique(roots, return_inverse=True)[1].astype(np.int64)

    def _find(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = label = self._parents[self._parents[label]]
        return label
