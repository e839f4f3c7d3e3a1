"""The SQNR of a graph's outputs against another's, on a few samples: how methods choose between ways."""

import tempfile
from pathlib import Path

import numpy as np

from worker.engine.graph import Graph
from worker.engine.samples import Samples
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import decibels, noise_energy


def compare_outputs(reference: Graph, other: Graph, samples: Samples, limit: int) -> float:
    """Mean over the floating-point outputs of their SQNR, dB; infinite where all are equal."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for name, graph in (("reference", reference), ("other", other)):
            path = Path(folder) / f"{name}.onnx"
            graph.save(path)
            sessions.append(open_session(path))
        energies: dict[int, list[tuple[float, float]]] = {}
        for batch in samples.batches(limit=limit):
            pairs = zip(*(run_session(session, batch.feed) for session in sessions), strict=True)
            for index, (expected, got) in enumerate(pairs):
                if expected.dtype.kind == "f":
                    energies.setdefault(index, []).append(noise_energy(expected, got))
    ratios = [decibels(*np.sum(parts, axis=0)) for parts in energies.values()]
    return float(np.mean([np.inf if ratio is None else ratio for ratio in ratios])) if ratios else np.inf
