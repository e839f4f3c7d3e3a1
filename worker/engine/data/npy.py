"""Rows of one `.npy` file, read on demand. What an array is for is the dataset reader's concern."""

import math
import re
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from app.contracts.failure import SlimlineError
from worker.engine.data.source import Array

HINT = "numpy.savez_compressed('data.npz', x=..., y=...) writes what is taken: plain numbers, one row per sample"
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_NO_HEADER = (ValueError, KeyError, EOFError, SyntaxError, TokenError, MemoryError, RecursionError)
"""The header is a Python literal; NumPy lets through what the tokenizer and the parser raise on junk."""
_NUMBERS, _TEXT = "biuf", "US"
_OF_OURS = re.compile(r": <.*? object at 0x\w+>")
_LONGEST_REASON = 200


class NpyFile:
    """An array on disk: `shape`, `dtype`, and its rows.

    Raises SlimlineError DATA_PICKLED, DATA_DTYPE_UNSUPPORTED, DATA_BROKEN or DATA_TRUNCATED.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with path.open("rb") as file:
            self.shape, self._fortran, self.dtype = _read_header(file, name)
            self._start = file.tell()
        if self.dtype.hasobject:
            raise refusal("DATA_PICKLED", name, "holds Python objects, which are never unpickled")
        if self.dtype.kind not in _NUMBERS + _TEXT:
            raise refusal("DATA_DTYPE_UNSUPPORTED", name, f"is of type {self.dtype}, which no model takes")
        if path.stat().st_size - self._start < math.prod(self.shape) * self.dtype.itemsize:
            raise refusal("DATA_TRUNCATED", name, f"has fewer bytes than its shape {list(self.shape)} needs")

    @property
    def is_text(self) -> bool:
        """Whether it holds strings, which no model takes."""
        return self.dtype.kind in _TEXT

    def rows(self, indices: Array) -> Array:
        """Rows along the first axis, in the order of `indices`."""
        if self._fortran:
            return np.ascontiguousarray(np.load(self.path, mmap_mode="r", allow_pickle=False)[indices])
        width = math.prod(self.shape[1:])
        out = np.empty((len(indices), width), self.dtype)
        with self.path.open("rb") as file:
            for run in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(indices) != 1) + 1):
                if run.size:
                    file.seek(self._start + int(indices[run[0]]) * width * self.dtype.itemsize)
                    out[run] = np.fromfile(file, self.dtype, run.size * width).reshape(run.size, width)
        return out.reshape(len(indices), *self.shape[1:])

    def scalar(self) -> Array:
        """The value of an array without dimensions."""
        return np.asarray(np.load(self.path, allow_pickle=False))


def refusal(code: str, name: str, what: str, hint: str = HINT) -> SlimlineError:
    """A problem with array `name`."""
    return SlimlineError(code, f"array {name!r} {what}", node=name, hint=hint)


def _read_header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    try:
        shape, fortran, dtype = _READ_HEADER[npy.read_magic(file)](file)
    except _NO_HEADER as error:
        reason = _OF_OURS.sub("", str(error))[:_LONGEST_REASON]
        raise refusal("DATA_BROKEN", name, f"is no .npy array: {reason}") from error
    if any(size < 0 for size in shape):
        raise refusal("DATA_BROKEN", name, f"has the impossible shape {list(shape)}")
    return shape, fortran, dtype
