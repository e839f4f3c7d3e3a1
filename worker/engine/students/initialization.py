"""New random weights for a graph, as training from scratch begins with. Their scale is seen to in `unit_variance`."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from worker.engine.graph import Graph
from worker.engine.graph.graph import Array
from worker.engine.students.roles import Part, Role, find_parts

_POSITION_STD = 0.02
_SLOPE = 0.25
Draw = Callable[[np.random.Generator, Part, tuple[int, ...]], Array]


def _normal(std: Callable[[Part], float]) -> Draw:
    return lambda generator, part, shape: generator.normal(0.0, std(part), shape)


def _uniform(bound: Callable[[Part], float]) -> Draw:
    return lambda generator, part, shape: generator.uniform(-bound(part), bound(part), shape)


def _constant(number: float) -> Draw:
    return lambda _, __, shape: np.full(shape, number)


_DRAWS: Mapping[Role, Draw] = {
    Role.WEIGHT: _normal(lambda part: math.sqrt(2 / part.fan_in)),
    Role.TABLE: _normal(lambda _: 1.0),
    Role.TIED_TABLE: _normal(lambda part: math.sqrt(1 / part.fan_in)),
    Role.RECURRENT: _uniform(lambda part: math.sqrt(1 / part.fan_in)),
    Role.POSITION: _normal(lambda _: _POSITION_STD),
    Role.SCALE: _constant(1.0),
    Role.SHIFT: _constant(0.0),
    Role.SLOPE: _constant(_SLOPE),
}
"""Weights as He et al. 2015 (arXiv:1502.01852); the others as torch.nn's modules begin."""


def initialize(graph: Graph, seed: int) -> list[Part]:
    """Give every parameter of `graph` new numbers, in place; they depend on `seed` and its name. Constants stay."""
    parts = find_parts(graph)
    for part in parts:
        old = graph.array(part.value)
        drawn = _DRAWS[part.role](_generator(part.value.name or "", seed), part, old.shape)
        graph.set_array(part.value, drawn.astype(old.dtype))
    return parts


def tell(parts: list[Part]) -> str:
    """What was initialized, in words."""
    counts = Counter(part.role for part in parts)
    return ", ".join(f"{counts[role]} x {role}" for role in Role if counts[role])


def _generator(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *hashlib.sha256(name.encode()).digest()])
