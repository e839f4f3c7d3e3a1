"""What a quantized file is worth beside its original: accuracy, SQNR, size, kernels. Latency is measured elsewhere."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.comparison.data import Split
from worker.engine.measure.kernels import count_kernels
from worker.engine.measure.size import file_bytes
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import decibels, noise_energy

_BATCH = 64


@dataclass(frozen=True)
class Quality:
    """Accuracy: top-1 in percent, None without labels. SQNR: of the first output, dB, None where it is bit-equal."""

    accuracy: float | None
    drop: float | None
    agreement: float
    sqnr_db: float | None
    size_ratio: float
    integer_kernels: int
    float_kernels: int
    conversions: int


@dataclass(frozen=True)
class Reference:
    """The original and what it gives for the evaluation data."""

    model: Path
    input_name: str
    data: Split
    scores: NDArray[Any]

    @property
    def accuracy(self) -> float | None:
        """Top-1, percent."""
        return _accuracy(self.scores, self.data)

    @cached_property
    def digest(self) -> str:
        """Of everything a quality depends on besides the quantized file."""
        told = hashlib.sha256(f"{ort.__version__} {_BATCH}".encode())
        told.update(self.scores.tobytes())
        told.update(np.ascontiguousarray(self.data.x).data)
        return told.hexdigest()[:16]

    def feed(self, batch: int) -> dict[str, NDArray[Any]]:
        """The first samples, repeated where there are too few."""
        return {self.input_name: np.resize(self.data.x, (batch, *self.data.x.shape[1:]))}


def measure_reference(model: Path, input_name: str, data: Split) -> Reference:
    """Run the original over `data`."""
    return Reference(model, input_name, data, np.concatenate(list(_scores(model, input_name, data))))


def measure_quality(model: Path, reference: Reference) -> Quality:
    """Raises SlimlineError where `model` does not load or run."""
    scores = np.concatenate(list(_scores(model, reference.input_name, reference.data)))
    accuracy, kernels = _accuracy(scores, reference.data), count_kernels(model)
    return Quality(
        accuracy=accuracy,
        drop=None if accuracy is None or reference.accuracy is None else reference.accuracy - accuracy,
        agreement=float((scores.argmax(1) == reference.scores.argmax(1)).mean() * 100),
        sqnr_db=decibels(*noise_energy(reference.scores, scores)),
        size_ratio=file_bytes(model) / file_bytes(reference.model),
        integer_kernels=kernels.integer,
        float_kernels=kernels.float,
        conversions=kernels.borders,
    )


def _accuracy(scores: NDArray[Any], data: Split) -> float | None:
    return None if data.y is None else float((scores.argmax(1) == data.y).mean() * 100)


def _scores(model: Path, input_name: str, data: Split) -> Iterator[NDArray[Any]]:
    session = open_session(model)
    for start in range(0, len(data.x), _BATCH):
        yield run_session(session, {input_name: data.x[start : start + _BATCH]})[0]
