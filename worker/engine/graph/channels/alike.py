"""Puts units that take part in the same dimensions into groups. What units are is worked out elsewhere."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine.graph.layers import Layer

Units = NDArray[np.int64]
STAYS = -1
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True)
class Member:
    """A dimension of a stored tensor that units are part of: `units` has the unit of each index, -1 for none."""

    constant: str
    axis: int
    units: Units


@dataclass(frozen=True)
class Group:
    """Units that take part in the same dimensions, any of which may go as long as one stays.

    `layers` have them as output channels, the first of them `width` for each unit. `kind`: channel, head, hidden unit.
    """

    units: Units
    members: Sequence[Member]
    layers: Sequence[str]
    width: int
    kind: str


def find_alike(
    members: Sequence[Member], dimensions: Iterable[Units], layers: Sequence[Layer], heads: Units
) -> list[Group]:
    """The groups of what takes part in `dimensions` of any tensors, in the order of their first units.

    `heads` are units that are attention heads. Units in no layer's output channels are in no group.
    """
    owners = {(weight.name or "", layer.output_axis): layer for layer in reversed(layers) for weight in layer.weights}
    found = []
    for units in _sort_alike(dimensions):
        own = [member for member in members if np.isin(units[0], member.units)]
        outputs = [(owners[key], member) for member in own if (key := (member.constant, member.axis)) in owners]
        if outputs:
            names = list(dict.fromkeys(layer.name for layer, _ in outputs))
            layer, first = outputs[0]
            kind = "hidden unit" if layer.op in RECURRENT else "head" if units[0] in heads else "channel"
            width = 1 if layer.op in RECURRENT else int((first.units == units[0]).sum())
            found.append(Group(units, own, names, width, kind))
    return found


def _sort_alike(dimensions: Iterable[Units]) -> list[Units]:
    """Units by the dimensions they take part in: each dimension adds a number of its own to a sum for each unit."""
    generator = np.random.default_rng(0)
    sums: NDArray[np.uint64] = np.zeros(0, np.uint64)
    for dimension in dimensions:
        units, counts = np.unique(dimension[dimension != STAYS], return_counts=True)
        if len(units):
            sums = np.pad(sums, (0, max(0, int(units[-1]) + 1 - len(sums))))
            sums[units] += generator.integers(1 << 63, dtype=np.uint64) * counts.astype(np.uint64)
    alike = defaultdict(list)
    for unit, total in enumerate(sums.tolist()):
        if total:
            alike[total].append(unit)
    return [np.array(units) for units in alike.values()]
