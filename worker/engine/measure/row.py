"""Puts together a measured row. The measuring itself is in the files beside."""

from pathlib import Path

from app.contracts.measurement import Measurement
from worker.engine.graph import Graph
from worker.engine.graph.cost import count_weights, macs
from worker.engine.measure.size import file_bytes, zstd_bytes


def static_row(graph: Graph, path: Path, notes: list[str]) -> Measurement:
    """What is known of a graph and its file without running it."""
    weights, zstd, work = count_weights(graph), zstd_bytes(path), macs(graph)
    missing = [
        "size_zstd_bytes was not measured: the package zstandard is not installed" if zstd is None else None,
        "macs is unknown: some shapes depend on the input" if work is None else None,
    ]
    return Measurement(
        size_bytes=file_bytes(path),
        size_zstd_bytes=zstd,
        parameters=weights.count,
        nonzero=weights.nonzero,
        macs=work,
        weight_bits=weights.bits / weights.count if weights.count else None,
        notes=[*(note for note in missing if note), *notes],
    )
