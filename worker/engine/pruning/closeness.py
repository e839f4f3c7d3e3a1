"""How close a graph's outputs come to an original's on samples held out. What is done about it is elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worker.engine.graph import Graph
from worker.engine.measure.fidelity import FidelityMeter
from worker.engine.session import Array, Device
from worker.engine.torch_graph import TorchGraph

_FEWEST_DIRECTIONS = 3


@dataclass(frozen=True)
class Closeness:
    """Means over the floating-point outputs, against the original's.

    `cosine` of each sample's output with the original's, 1 where it has less than three numbers. `sqnr_db` is infinite
    for equal outputs, -inf where they hold NaN or infinities.
    """

    cosine: float
    sqnr_db: float

    def is_closer_than(self, other: "Closeness") -> bool:
        """By the cosine, which goes with accuracy: SQNR also rewards wrong outputs for being small. It breaks ties."""
        return (self.cosine, self.sqnr_db) > (other.cosine, other.sqnr_db)


class HeldOut:
    """Inputs with the original's outputs, to compare graphs on."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._batches: list[tuple[Sequence[torch.Tensor], list[Array], int]] = []

    def add(self, inputs: Sequence[torch.Tensor], outputs: Sequence[Any], count: int) -> None:
        """Keep a batch whose first `count` rows are samples; `outputs` are the original's."""
        self._batches.append((inputs, _floats(outputs, count), count))

    @property
    def is_empty(self) -> bool:
        """Whether nothing that could be compared was kept."""
        return not any(outputs for _, outputs, _ in self._batches)

    def compare(self, graph: Graph) -> Closeness:
        """Run `graph`. Raises SlimlineError where torch cannot."""
        module = TorchGraph(graph).to(self._device)
        meters = [FidelityMeter(None) for _ in self._batches[0][1]]
        with torch.inference_mode():
            for inputs, expected, count in self._batches:
                for meter, wanted, got in zip(meters, expected, _floats(module(*inputs), count), strict=True):
                    meter.update(wanted, got)
        directions = [each[0].size >= _FEWEST_DIRECTIONS for each in self._batches[0][1]]
        found = [result for meter in meters if (result := meter.result()) is not None]
        cosines = [
            each.cosine if has_one and each.cosine is not None else 1.0
            for each, has_one in zip(found, directions, strict=True)
        ]
        ratios = [np.inf if each.sqnr_db is None else each.sqnr_db for each in found]
        return Closeness(_mean(cosines, -1.0), _mean(ratios, -np.inf))


def _mean(numbers: Sequence[float], without: float) -> float:
    mean = float(np.mean(numbers))
    return without if np.isnan(mean) else mean


def _floats(outputs: Sequence[Any], count: int) -> list[Array]:
    """Without what fills up a fixed batch, which a scalar does not have."""
    tensors = [each for each in outputs if isinstance(each, torch.Tensor) and each.is_floating_point()]
    arrays = [(each[:count] if each.dim() else each).detach().float().cpu().numpy() for each in tensors if each.numel()]
    return [np.atleast_1d(each) for each in arrays]
