"""What a reader of one dataset format gives: stored samples by index. Preprocessing and feeding are `dataset`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from app.contracts.failure import SlimlineError

Array = NDArray[Any]
Labels = NDArray[np.int64] | NDArray[np.floating[Any]]
"""Classes from 0, one for each sample or a map of them; or floats, what a regression is to give."""


@dataclass(frozen=True)
class Stored:
    """An array as stored, without its sample axis. A dimension is None where it differs between samples."""

    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]


class Source(Protocol):
    """Samples of one file, read only when asked for."""

    format: Literal["npz", "images"]
    samples: int
    arrays: Mapping[str, Stored]
    constants: Mapping[str, Array]
    """Scalars, fed to every call under their name."""
    classes: list[str] | None
    notes: list[str]

    @property
    def has_labels(self) -> bool:
        """Whether every sample has a label."""
        ...

    def read(self, name: str, indices: Array) -> Array:
        """Those samples of array `name`, in that order. Raises SlimlineError for what cannot be read."""
        ...

    def labels(self, indices: Array) -> Labels:
        """Their labels; only where `has_labels`. Raises SlimlineError LABELS_INVALID or DATA_NOT_FINITE."""
        ...

    def close(self) -> None:
        """Close the file and drop what was unpacked from it."""
        ...


def read_finite(source: Source, name: str, indices: Array) -> Array:
    """Samples of one array. Raises SlimlineError DATA_NOT_FINITE naming the array and the first bad index."""
    values = source.read(name, indices)
    check_finite(name, values, indices)
    return values


def check_finite(name: str, values: Array, indices: Array) -> None:
    """Raises SlimlineError DATA_NOT_FINITE naming the array and the first bad one of `indices`."""
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
        if bad.size:
            raise _not_finite(name, f" in sample {int(indices[bad[0]])}")


def check_constants(source: Source) -> None:
    """Raises SlimlineError DATA_NOT_FINITE naming the first scalar that is no number."""
    for name, value in source.constants.items():
        if value.dtype.kind == "f" and not np.isfinite(value):
            raise _not_finite(name, "")


def _not_finite(name: str, where: str) -> SlimlineError:
    told = f"array {name!r} holds NaN or infinity{where}"
    return SlimlineError("DATA_NOT_FINITE", told, node=name, hint="remove or repair those samples")
