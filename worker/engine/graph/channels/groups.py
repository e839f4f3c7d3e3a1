"""Channel groups of a graph: units that can be removed exactly, alike ones together. What goes is decided elsewhere.

The idea is that of DepGraph (Fang et al. 2023, arXiv:2301.12900), worked out for single indices of every dimension of
every tensor: each operator says which of them live and die together.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from worker.engine.graph.channels.alike import STAYS, Group, Member, Units, find_alike
from worker.engine.graph.channels.masking import mask
from worker.engine.graph.channels.preparation import prepare
from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.sizes import Sizes
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.visiting import visit
from worker.engine.graph.channels.walk import Walk
from worker.engine.graph.graph import Graph
from worker.engine.graph.layers import Layer
from worker.engine.graph.passes.dead import remove_dead

_ROUNDS = 6


class Groups:
    """What can be removed of a graph, and what not and why."""

    def __init__(self, walk: Walk) -> None:
        self.graph = walk.graph
        """The graph as it was walked: names as in the one given, constants stored."""
        self._sizes = walk.sizes
        self._rewrites = walk.rewrites
        self._axes = {value.name or "": axes for value, axes in walk.labelled()}
        self._components, stops = walk.unions.components()
        self._blocked = {component: walk.reasons[stop] for component, stop in stops.items()}
        self._units = self._number_units()
        self.count = int(self._units.max(initial=STAYS)) + 1
        self.splits = walk.splits
        self._heads = [*walk.heads, *(split.labels for split in walk.splits.values() if split.is_of_heads)]

    @cached_property
    def members(self) -> Sequence[Member]:
        """Every dimension of a stored tensor that units are part of."""
        found = [
            Member(name, axis, self._units[labels]) for name, axes in self._stored() for axis, labels in enumerate(axes)
        ]
        return [member for member in found if (member.units != STAYS).any()]

    @cached_property
    def groups(self) -> Sequence[Group]:
        """In graph order; units that are in no layer's output channels are in none."""
        dimensions = (self._units[labels] for axes in self._axes.values() for labels in axes)
        heads = [self._units[labels] for labels in self._heads]
        return find_alike(self.members, dimensions, self.graph.layers(), np.concatenate([[STAYS], *heads]))

    def remove(self, units: Collection[int]) -> Graph:
        """A copy of the graph without these units. Those of a group must not all go."""
        gone = np.zeros(self.count + 1, np.bool_)
        gone[list(units)] = True
        copy = self.graph.clone()
        removal = Removal(copy, self._sizes, self._axes, ~gone[self._units])
        for (_, rewrite), node in zip(self._rewrites, self._nodes_of(copy), strict=True):
            rewrite(removal, node)
        removal.slice_constants()
        removal.mend_shapes()
        remove_dead(copy)
        copy.infer_shapes()
        return copy

    def masked(self, units: Collection[int]) -> Graph:
        """A copy of the graph with all stored slices of these units masked: it computes what `remove` gives."""
        gone = np.zeros(self.count + 1, np.bool_)
        gone[list(units)] = True
        copy = self.graph.clone()
        for member in self.members:
            if gone[member.units].any():
                mask(copy, member.constant, member.axis, gone[member.units])
        return copy

    def kept(self, units: Collection[int], tensor: str, axis: int) -> NDArray[np.intp] | None:
        """Which indices of a dimension are left without these units; None where the tensor is not known."""
        axes = self._axes.get(tensor)
        return None if axes is None else np.flatnonzero(~np.isin(self._units[axes[axis]], list(units)))

    def obstacle(self, layer: Layer) -> str | None:
        """Why no output channel of a layer can go; None where one can."""
        axes = self._axes.get(layer.weight.name or "")
        if axes is None:
            return "nothing that the outputs depend on reads its weights"
        labels = axes[layer.output_axis]
        if (self._units[labels] != STAYS).any():
            return None
        return self._blocked.get(int(self._components[labels[0]]), "it has no output channels")

    def _nodes_of(self, copy: Graph) -> list[ir.Node]:
        same = dict(zip(map(id, self.graph.nodes()), copy.nodes(), strict=True))
        return [same[id(node)] for node, _ in self._rewrites]

    def _stored(self) -> list[tuple[str, Axes]]:
        names = [value.name or "" for value in self.graph.initializers()]
        return [(name, self._axes[name]) for name in names if name in self._axes]

    def _number_units(self) -> Units:
        """For every label its unit: sets of labels that are in stored tensors and not blocked, in graph order."""
        stored = np.concatenate([[], *(labels for _, axes in self._stored() for labels in axes)]).astype(np.int64)
        in_order = list(dict.fromkeys(self._components[np.sort(stored)].tolist()))
        numbers = np.full(int(self._components.max(initial=0)) + 1, STAYS)
        free = [component for component in in_order if component not in self._blocked]
        numbers[free] = np.arange(len(free))
        return numbers[self._components]

    def are_stuck(self, labels: Labels) -> bool:
        """Whether none of the labels can be removed."""
        return all(int(component) in self._blocked for component in np.unique(self._components[labels]))


def find_groups(graph: Graph) -> Groups:
    """Walk a graph, bodies too. Raises SlimlineError SHAPES_CONFLICT where no sizes suit its free dimensions."""
    prepared = prepare(graph)
    sizes, choices = Sizes(prepared), dict[tuple[str, int], int]()
    groups = _analyse(prepared, sizes, choices)
    for _ in range(_ROUNDS):
        changes = _better(groups)
        if not changes:
            break
        choices.update(changes)
        groups = _analyse(prepared, sizes, choices)
    return groups


def _analyse(graph: Graph, sizes: Sizes, choices: Mapping[tuple[str, int], int]) -> Groups:
    walk = Walk(graph, sizes, choices)
    for value in graph.model.graph.inputs:
        walk.give(value, walk.stuck(value, f"it is tied to the model's input {value.name!r}"))
    for node in graph.model.graph:
        visit(walk, node)
    for value in graph.model.graph.outputs:
        for labels in walk.known_axes(value) or ():
            walk.block(labels, f"it is tied to the model's output {value.name!r}")
    return Groups(walk)


def _better(groups: Groups) -> dict[tuple[str, int], int]:
    """Other choices for dimensions of which the chosen factor cannot lose anything after all.

    Heads are given up last: they may only wait for the other operand of a product.
    """
    found: dict[bool, dict[tuple[str, int], int]] = {False: {}, True: {}}
    for key, split in groups.splits.items():
        others = split.candidates[split.candidates.index(split.chosen) + 1 :]
        if others and groups.are_stuck(split.labels):
            found[split.is_of_heads][key] = others[0]
    return found[False] or found[True]
