"""What is known of each tensor while a graph is walked: its labels, and what is exactly zero where channels are masked.

What single operators do is in `rules/`; the groups that come of it are in `groups`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from worker.engine.graph.channels.masking import is_masked
from worker.engine.graph.channels.sizes import Sizes
from worker.engine.graph.channels.unions import Axes, Labels, Unions
from worker.engine.graph.graph import Graph

if TYPE_CHECKING:
    from worker.engine.graph.channels.removal import Removal

Rewrite = Callable[["Removal", ir.Node], None]
"""Mends what a node says of sizes, after labels were removed: attributes, integer inputs."""


@dataclass(frozen=True)
class Split:
    """A dimension that a node takes apart into factors: only the chosen one, with `labels`, can lose indices."""

    candidates: Sequence[int]
    chosen: int
    is_of_heads: bool
    labels: Labels


class Walk:
    """The labels of a graph's tensors, and what rules say of them.

    *Masked* (see `masking`) is the graph with all slices of constants zeroed that stand for removed indices. The graph
    without them computes the same if every sum over a removed index adds zeros: one factor is zero there. `is_zero`
    says of which tensors that is known.
    """

    def __init__(self, graph: Graph, sizes: Sizes, choices: Mapping[tuple[str, int], int]) -> None:
        self.graph = graph
        self.sizes = sizes
        self.unions = Unions()
        self.splits: dict[tuple[str, int], Split] = {}
        self.heads: list[Labels] = []
        """Labels that count attention heads, beside those in `splits`."""
        self.rewrites: list[tuple[ir.Node, Rewrite]] = []
        self.reasons: dict[int, str] = {}
        self.choices = choices
        self._numbers: dict[str, int] = {}
        self._axes: dict[ir.Value, Axes | None] = {}
        self._zero: set[ir.Value] = set()
        self._lost: set[ir.Value] = set()

    def axes(self, value: ir.Value) -> Axes | None:
        """The labels of a tensor; None where its shape is not known. Constants get theirs when first asked for."""
        if value not in self._axes:
            if value.is_initializer() and not value.is_graph_input() and value.const_value is not None:
                self._axes[value] = [self._dimension(size) for size in value.const_value.shape.numpy()]
                if is_masked(value):
                    self._zero.add(value)
            else:
                self._axes[value] = self.stuck(value, f"it is not followed to {value.name!r}")
        return self._axes[value]

    def known_axes(self, value: ir.Value | None) -> Axes | None:
        """As `axes`, and None for an input that is left out."""
        return None if value is None else self.axes(value)

    def labelled(self) -> list[tuple[ir.Value, Axes]]:
        """Every tensor whose labels were asked for or given."""
        return [(value, axes) for value, axes in self._axes.items() if axes is not None]

    def give(self, value: ir.Value, axes: Axes | None, *, zero: bool = False) -> None:
        """Say what labels an output has, and whether it is zero where channels are masked.

        Where the sizes do not fit the tensor's, the rule was wrong about it, and it is stuck.
        """
        shape = self.sizes.of(value)
        if axes is None or shape is None or tuple(map(len, axes)) != shape:
            for labels in axes or ():
                self.block(labels, f"what becomes of it in {value.name!r} is not known")
            self._axes[value] = self.stuck(value, f"the shape of {value.name!r} is not known")
            self._lost.add(value)
            return
        self._axes[value] = axes
        (self._zero.add if zero else self._zero.discard)(value)

    def is_lost(self, value: ir.Value) -> bool:
        """Whether no rule could say what becomes of indices in this output; one that is left out has none."""
        return bool(value.name) and value in self._lost

    def stuck(self, value: ir.Value, reason: str) -> Axes | None:
        """Labels for a tensor of which nothing can be removed; None where its shape is not known."""
        shape = self.sizes.of(value)
        return None if shape is None else [self.blocked(size, reason) for size in shape]

    def give_up(self, node: ir.Node, reason: str) -> None:
        """Nothing that a node reads or makes can be removed."""
        for value in node.inputs:
            for labels in self.known_axes(value) or ():
                self.block(labels, reason)
        for value in node.outputs:
            self.give(value, self.stuck(value, reason))

    def is_zero(self, value: ir.Value | None) -> bool:
        """Whether it is known to be zero at all masked indices of every dimension."""
        return value is not None and value in self._zero

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether it is stored in the graph."""
        return value is not None and value.is_initializer() and not value.is_graph_input()

    def constant(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        """See `Sizes.constant`; None too where the input is left out."""
        if index >= len(node.inputs) or node.inputs[index] is None:
            return None
        return self.sizes.constant(node, index)

    def unite(self, first: Labels, second: Labels) -> None:
        """Have the indices live and die together; the arrays broadcast."""
        self.unions.unite(first, second)

    def unite_rows(self, labels: Labels, rows: int) -> Labels:
        """Of labels in `rows` rows of equal length, unite each row; the labels [rows]."""
        grid = labels.reshape(rows, -1)
        self.unite(grid[:, 1:], grid[:, :1])
        return grid[:, 0]

    def unite_columns(self, labels: Labels, rows: int) -> Labels:
        """Of labels in `rows` rows of equal length, unite each column; the labels [columns]."""
        grid = labels.reshape(rows, -1)
        self.unite(grid[1:], grid[:1])
        columns: Labels = grid[0]
        return columns

    def block(self, labels: Labels, reason: str) -> None:
        """Nothing of `labels` can be removed, and why."""
        if len(labels):
            self.unite(labels, self.blocked(1, reason))

    def blocked(self, size: int, reason: str) -> Labels:
        """Labels [size] of which none can be removed."""
        if reason not in self._numbers:
            self._numbers[reason] = self.unions.stop(is_weak=reason == _SINGLE)
            self.reasons[self._numbers[reason]] = reason
        labels: Labels = np.full(size, self._numbers[reason])
        return labels

    def is_free(self, labels: Labels) -> bool:
        """Whether, as far as the walk has come, indices may be removed."""
        return len(labels) > 1 and not all(int(label) in self.reasons for label in np.unique(labels))

    def is_fixed(self, value: ir.Value | None, axis: int) -> bool:
        """Whether the size of an axis does not depend on the input."""
        first, second = self.sizes.of(value), self.sizes.again(value)
        return first is not None and second is not None and first[axis] == second[axis]

    def later(self, node: ir.Node, rewrite: Rewrite) -> None:
        """Have `rewrite` called when indices are removed."""
        self.rewrites.append((node, rewrite))

    def _dimension(self, size: int) -> Labels:
        return self.blocked(size, _SINGLE) if size == 1 else self.unions.fresh(size)


_SINGLE = "there is only one"


def attribute(node: ir.Node, name: str, default: int) -> int:
    """A whole-number attribute."""
    return node.attributes[name].as_int() if name in node.attributes else default


def called(node: ir.Node) -> str:
    """How reasons speak of a node."""
    return f"{node.op_type} {node.name!r}"
