"""Agreement of a model's outputs with the original's on the same inputs, gathered batch by batch."""

import numpy as np
from numpy.typing import NDArray

from app.contracts.measurement import Fidelity
from worker.engine.tensors.similarity import agreements, cosines, decibels, noise_energy

Outputs = list[np.ndarray]


class FidelityMeter:
    """Adds up batches; memory does not grow. `axis` is where class scores lie in the first output, if they do."""

    def __init__(self, axis: int | None) -> None:
        self._axis = axis
        self._signal = self._noise = self._cosine = 0.0
        self._samples = self._agreed = self._compared = 0

    def update(self, original: NDArray[np.floating], other: NDArray[np.floating]) -> None:
        """One batch of the first floating-point output, axis 0 counting samples."""
        signal, noise = noise_energy(original, other)
        self._signal += signal
        self._noise += noise
        original, other = np.atleast_1d(original), np.atleast_1d(other)
        self._cosine += float(cosines(original, other).sum())
        self._samples += len(original)
        if self._axis is not None:
            same = agreements(original, other, self._axis)
            self._agreed += int(same.sum())
            self._compared += same.size

    def result(self) -> Fidelity | None:
        """None before the first batch."""
        if not self._samples:
            return None
        return Fidelity(
            sqnr_db=decibels(self._signal, self._noise),
            cosine=self._cosine / self._samples,
            agreement=self._agreed / self._compared if self._compared else None,
        )
