"""Reads `.npz` datasets. Members are unpacked to a temporary folder and read from there by rows, never whole."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from app.contracts.failure import SlimlineError
from worker.engine.data.npy import HINT, NpyFile, refusal
from worker.engine.data.source import Array, Labels, Stored, check_finite
from worker.engine.ingest.archive import Archive

LABEL_NAMES = ("y", "labels")
_SUFFIX = ".npy"
_BLOCK = 4096


class NpzSource:
    """`x` and optionally `y`, or arrays named as the model's inputs and optionally `y` or `labels`."""

    format: Literal["npz", "images"] = "npz"
    classes: list[str] | None = None

    def __init__(self, archive: Archive) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="npz-")
        try:
            self._sort(_unpack(archive, Path(self._folder.name)))
        except SlimlineError:
            self.close()
            raise

    @property
    def has_labels(self) -> bool:
        """Whether the file has an array `y` or `labels`."""
        return self._labels is not None

    def read(self, name: str, indices: Array) -> Array:
        """Rows of one array."""
        return self._files[name].rows(indices)

    def labels(self, indices: Array) -> Labels:
        """Rows of `y` or `labels`; a last axis of 1 is dropped from classes, not from floats.

        Raises SlimlineError LABELS_INVALID or DATA_NOT_FINITE.
        """
        if self._labels is None:
            raise KeyError(LABEL_NAMES[0])
        labels = self._labels.rows(indices)
        if self._labels.dtype.kind == "f":
            check_finite(self._labels.name, labels, indices)
            return labels
        if self._labels.shape[1:] == (1,):
            labels = labels[:, 0]
        negative = np.flatnonzero((labels < 0).reshape(len(labels), -1).any(1))
        if negative.size:
            where = int(indices[negative[0]])
            raise refusal("LABELS_INVALID", self._labels.name, f"holds a negative label at index {where}")
        return labels.astype(np.int64)

    def close(self) -> None:
        """Remove what was unpacked."""
        self._folder.cleanup()

    def _sort(self, files: dict[str, NpyFile]) -> None:
        """Tell samples, labels, scalars and text apart."""
        text = [name for name, file in files.items() if file.is_text]
        self.notes = [f"text is not used: {', '.join(text)}"] if text else []
        rows = {name: file for name, file in files.items() if file.shape and not file.is_text}
        self.constants: Mapping[str, Array] = {
            name: file.scalar() for name, file in files.items() if not file.shape and not file.is_text
        }
        self._labels = next((rows.pop(name) for name in LABEL_NAMES if name in rows), None)
        if self._labels:
            _check_kind(self._labels)
        self._files = rows
        self.samples = _count(rows, self._labels)
        self.arrays: Mapping[str, Stored] = {name: Stored(file.dtype, file.shape[1:]) for name, file in rows.items()}


def _check_kind(labels: NpyFile) -> None:
    """Raises SlimlineError LABELS_INVALID for what is neither classes nor numbers for a regression.

    Floats that are all whole numbers from 0 are a frequent slip: classes as floats, or one-hot rows.
    """
    what = f"is of type {labels.dtype}"
    match labels.dtype.kind:
        case "i" | "u":
            return
        case "f" if not _are_whole(labels):
            return
        case "f":
            what += ", and all are whole numbers from 0"
    raise refusal(
        "LABELS_INVALID",
        labels.name,
        f"{what}; labels are class indices from 0, or floats for a regression",
        "y.astype('int64'), also for a regression of whole numbers; y.argmax(1) for one-hot rows",
    )


def _are_whole(labels: NpyFile) -> bool:
    starts = range(0, labels.shape[0], _BLOCK)
    blocks = (labels.rows(np.arange(start, min(start + _BLOCK, labels.shape[0]))) for start in starts)
    return all(bool(((block >= 0) & (block == np.floor(block))).all()) for block in blocks)


def _unpack(archive: Archive, folder: Path) -> dict[str, NpyFile]:
    for name in archive.names:
        if not name.endswith(_SUFFIX):
            raise SlimlineError("DATA_MEMBER_UNKNOWN", f"{name!r} is no .npy array", node=name, hint=HINT)
    files = {}
    for name, path in zip(archive.names, archive.unpack(folder), strict=True):
        array = name.removesuffix(_SUFFIX)
        files[array] = NpyFile(path, array)
    return files


def _count(rows: dict[str, NpyFile], labels: NpyFile | None) -> int:
    """The number of samples, on which all arrays agree."""
    if not rows:
        raise SlimlineError("DATASET_EMPTY", "the .npz holds no array of samples", hint=HINT)
    everything = [*rows.values(), *([labels] if labels else [])]
    lengths = {file.name: file.shape[0] for file in everything}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise SlimlineError("DATA_LENGTHS_DIFFER", f"arrays have different numbers of samples: {told}", hint=HINT)
    if not everything[0].shape[0] or any(0 in file.shape for file in everything):
        raise SlimlineError("DATASET_EMPTY", "the arrays hold no samples", hint=HINT)
    return everything[0].shape[0]
