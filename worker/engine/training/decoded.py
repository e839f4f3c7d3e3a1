"""`keep_decoded`: decoded images stay in memory, so that only the first epoch decodes. Nothing is read here."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from worker.engine.data import Dataset
from worker.engine.data.source import Array, Labels, Source, Stored

LARGEST_BYTES = 512 << 20
"""Above this, all images together, they are decoded again in every epoch."""


def keep_decoded(dataset: Dataset) -> Dataset:
    """A view of `dataset` that decodes each image once, where that pays and fits; else `dataset` itself.

    What is kept lives as long as the view. Closing either closes both.
    """
    source = dataset.source
    size = sum(stored.dtype.itemsize * math.prod(_known(stored)) for stored in source.arrays.values())
    if source.format != "images" or isinstance(source, _Decoded) or size * source.samples > LARGEST_BYTES:
        return dataset
    return Dataset(_Decoded(source), dataset.preprocess)


class _Decoded:
    """A source that reads every sample of another once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.format: Literal["npz", "images"] = source.format
        self.samples, self.classes, self.notes = source.samples, source.classes, source.notes
        self.arrays: Mapping[str, Stored] = source.arrays
        self.constants: Mapping[str, Array] = source.constants
        self._rows = {
            name: np.empty((self.samples, *_known(stored)), stored.dtype) for name, stored in source.arrays.items()
        }
        self._is_there = {name: np.zeros(self.samples, np.bool_) for name in source.arrays}

    @property
    def has_labels(self) -> bool:
        """See `Source`."""
        return self._source.has_labels

    def read(self, name: str, indices: Array) -> Array:
        """See `Source`. Threads may read at once: a row is said to be there only when it is."""
        missing = np.unique(indices[~self._is_there[name][indices]])
        if missing.size:
            self._rows[name][missing] = self._source.read(name, missing)
            self._is_there[name][missing] = True
        rows: Array = self._rows[name][indices]
        return rows

    def labels(self, indices: Array) -> Labels:
        """See `Source`."""
        return self._source.labels(indices)

    def close(self) -> None:
        """See `Source`."""
        self._source.close()


def _known(stored: Stored) -> tuple[int, ...]:
    """The shape of one sample, whose sizes all images share."""
    return tuple(size or 0 for size in stored.shape)
