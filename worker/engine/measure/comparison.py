"""The SQNR of models' outputs against those of one reference, on a few samples: how methods choose between ways."""

import numpy as np
import onnxruntime as ort

from worker.engine.graph import Graph
from worker.engine.samples import Samples
from worker.engine.session import open_graph, run_session
from worker.engine.tensors.similarity import decibels, noise_energy

_MOST_BYTES = 256 << 20
"""Of the reference's outputs, which are kept; samples beyond that are not compared."""


class Judge:
    """Compares models with `reference`, which is run once, on at most `limit` of `samples`."""

    def __init__(self, reference: Graph, samples: Samples, limit: int) -> None:
        session = open_graph(reference)
        self._pairs, kept = [], 0
        for batch in samples.batches(limit=limit):
            outputs = run_session(session, batch.feed)
            self._pairs.append((batch.feed, outputs))
            kept += sum(output.nbytes for output in outputs)
            if kept > _MOST_BYTES:
                break

    def compare(self, session: ort.InferenceSession) -> float:
        """Mean over the floating-point outputs of their SQNR, dB; infinite where all are equal, -inf for no number."""
        energies: dict[int, list[tuple[float, float]]] = {}
        for feed, expected in self._pairs:
            for index, (wanted, got) in enumerate(zip(expected, run_session(session, feed), strict=True)):
                if wanted.dtype.kind == "f":
                    energies.setdefault(index, []).append(noise_energy(wanted, got))
        found = [_decibels(*np.sum(parts, axis=0)) for parts in energies.values()]
        return -np.inf if -np.inf in found else float(np.mean(found)) if found else np.inf


def _decibels(signal: float, noise: float) -> float:
    if not np.isfinite(noise):
        return -np.inf
    ratio = decibels(signal, noise)
    return np.inf if ratio is None else ratio
