"""The ranges of a graph's tensors, found on samples and read by a calibrator. Which is best is decided elsewhere."""

from collections.abc import Collection
from dataclasses import dataclass

from worker.engine.graph import Graph
from worker.engine.quantization.calibration import Pass, find_extremes
from worker.engine.quantization.pairs import Range
from worker.engine.tensors.extremes import Extremes
from worker.engine.tensors.histogram import Histogram
from worker.engine.tensors.ranges import Calibrator, find_range


@dataclass(frozen=True)
class Reading:
    """How a range is read from a distribution: see `tensors.ranges.find_range`."""

    calibrator: Calibrator
    percentile: float
    levels: int
    symmetric: bool


def extreme_ranges(graph: Graph, names: Collection[str], run: Pass) -> dict[str, Range]:
    """From the least to the largest value of each tensor, 0 within; none for what was not finite, or never seen."""
    found = find_extremes(graph, run, names)
    return {name: (min(each.low, 0.0), max(each.high, 0.0)) for name, each in found.items() if _is_sound(each)}


def read_ranges(histograms: dict[str, Histogram], reading: Reading) -> dict[str, Range]:
    """The calibrator's ranges of all tensors that were finite."""
    return {
        name: find_range(
            each,
            reading.calibrator,
            levels=reading.levels,
            symmetric=reading.symmetric,
            percentile=reading.percentile,
        )
        for name, each in histograms.items()
        if not each.non_finite and each.low <= each.high
    }


def _is_sound(extremes: Extremes) -> bool:
    return extremes.are_finite and extremes.low <= extremes.high
