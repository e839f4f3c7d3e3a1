"""What is known of each tensor while a graph is walked: its labels, and the constants that its scales fold into.

What single operators do to labels is in the rules; see `channels`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.quantization.folding import labels as arithmetic
from worker.engine.quantization.folding.labels import FIXED, Labels
from worker.engine.quantization.folding.unions import Unions

_LARGEST = 1e30
"""Weights above this could overflow when they are scaled."""


@dataclass(frozen=True)
class Scaled:
    """A constant that takes part: multiplied by the scales that `reads` names, divided by those that `writes` names.

    Both broadcast to its shape. `is_weight` tells the weight of a linear layer from a bias or a gain.
    """

    constant: ir.Value
    reads: Labels
    writes: Labels
    is_weight: bool


@dataclass(frozen=True)
class Reading:
    """The tensor that a linear layer reads, the axis it sums over, counted from the end, and the labels [C] there."""

    value: ir.Value
    axis: int
    labels: Labels


class Flow:
    """Labels by tensor. A tensor that nothing has labelled is fixed, and stays so."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._unions = graph, Unions()
        self._labels: dict[ir.Value, Labels] = {}
        self._is_sane: dict[ir.Value, bool] = {}
        self.scaled: list[Scaled] = []
        self.readings: list[Reading] = []

    def of(self, value: ir.Value | None) -> Labels:
        """The labels of a tensor."""
        return FIXED if value is None else self._labels.setdefault(value, FIXED)

    def label(self, value: ir.Value, labels: Labels) -> None:
        """Label a tensor that a node makes."""
        if self._labels.setdefault(value, labels) is not labels:  # read before it was made: nodes are not sorted
            self.fix(labels)

    def fresh(self, count: int) -> Labels:
        """Labels [count] of new scales."""
        return self._unions.fresh(count)

    def join(self, parts: Sequence[Labels]) -> Labels:
        """The labels of what adds or compares tensors, element by element: their scales become equal."""
        for part in parts[1:]:
            self._unions.join(parts[0], part)
        shape = np.broadcast_shapes(*(part.shape for part in parts))
        return np.broadcast_to(parts[0], shape) if parts else FIXED

    def fix(self, labels: Labels) -> None:
        """These scales are 1."""
        self._unions.join(labels, FIXED)

    def is_free(self, labels: Labels) -> bool:
        """Whether any of these scales may be other than 1."""
        return self._unions.is_free(labels)

    def may_scale(self, constant: ir.Value | None) -> bool:
        """Whether `constant` is a float32 initializer that one node alone reads, with sane numbers."""
        if constant is None or not constant.is_initializer() or constant.is_graph_input() or constant.is_graph_output():
            return False
        if constant.dtype != ir.DataType.FLOAT or len(constant.uses()) != 1:
            return False
        if constant not in self._is_sane:
            self._is_sane[constant] = bool((np.abs(self._graph.array(constant)) < _LARGEST).all())
        return self._is_sane[constant]

    def scale(
        self, constant: ir.Value, *, reads: Labels = FIXED, writes: Labels = FIXED, is_weight: bool = False
    ) -> bool:
        """Have `constant` take part; False where it cannot."""
        if not self.may_scale(constant):
            return False
        shape = self._graph.array(constant).shape
        if not arithmetic.fit(reads, shape) or not arithmetic.fit(writes, shape):
            return False
        self.scaled.append(Scaled(constant, reads, writes, is_weight))
        return True

    def numbered(self) -> Labels:
        """For every label the number of its scale, without gaps; 0 is the scale 1."""
        return self._unions.numbered()


Rule = Callable[[Flow, ir.Node], Sequence[Labels] | None]
"""Gives the labels of a node's outputs, those left out being fixed; None fixes whatever the node reads."""
