"""Removes units from a graph: stored tensors are sliced, nodes that speak of sizes mended. It decides nothing."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from worker.engine.graph.channels.sizes import Sizes
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.edit import Editor, owner_of
from worker.engine.graph.graph import Graph


class Removal:
    """A copy of an analysed graph from which indices are being removed. Rules' rewrites speak to it.

    They are given nodes of the copy; labels, sizes and shapes are asked for of its values.
    """

    def __init__(self, graph: Graph, sizes: Sizes, axes: dict[str, Axes], keeps: NDArray[np.bool_]) -> None:
        """`axes` are labels by the name of their tensor, `keeps` tells of every label whether it stays."""
        self.graph = graph
        self.sizes = sizes
        self.editor = Editor(graph)
        self._axes = axes
        self._keeps = keeps

    def kept(self, labels: Labels) -> NDArray[np.bool_]:
        """Which of the labels stay."""
        return self._keeps[labels]

    def kept_along(self, value: ir.Value | None, axis: int) -> NDArray[np.bool_]:
        """Which indices of an axis stay."""
        axes = self._labels(value)
        return self.kept(axes[axis])

    def size(self, value: ir.Value | None, axis: int) -> int:
        """How many indices of an axis stay, with the first numbers for free dimensions."""
        return int(self.kept_along(value, axis).sum())

    def new_places(self, labels: Labels) -> NDArray[np.int64]:
        """For every index where it lies after the removal; nothing of use for those that go."""
        return np.cumsum(self.kept(labels)) - 1

    def loses(self, value: ir.Value | None, axis: int) -> bool:
        """Whether indices of an axis go."""
        return not bool(self.kept_along(value, axis).all())

    def set_integers(self, node: ir.Node, index: int, numbers: Sequence[int] | NDArray[np.int64]) -> None:
        """Give a node a constant of its own as input `index`, a vector of whole numbers."""
        name = f"{node.name}_{index}"
        constant = self.editor.initializer(owner_of(node), name, np.asarray(numbers, np.int64))
        inputs = list(node.inputs) + [None] * (index + 1 - len(node.inputs))
        node.resize_inputs(len(inputs))
        node.replace_input_with(index, constant)

    def scale_constant(self, value: ir.Value, factor: float) -> None:
        """Multiply a stored tensor."""
        array = self.graph.array(value)
        self.graph.set_array(value, (array * factor).astype(array.dtype))

    def own_constant(self, node: ir.Node, index: int) -> ir.Value:
        """The stored tensor that a node reads, now read by no other."""
        value = node.inputs[index]
        if value is None or value.const_value is None:
            raise KeyError(f"{node.name!r} has no stored input {index}")
        if len(value.uses()) > 1:
            twin = self.editor.initializer(owner_of(value), value.name or "", self.graph.array(value))
            self._axes[twin.name or ""] = self._labels(value)
            node.replace_input_with(index, twin)
            return twin
        return value

    @staticmethod
    def float_type(value: ir.Value) -> np.dtype[np.floating]:
        """The type of a tensor's numbers."""
        return (value.dtype or ir.DataType.FLOAT).numpy()

    def _labels(self, value: ir.Value | None) -> Axes:
        axes = None if value is None else self._axes.get(value.name or "")
        if axes is None:
            raise KeyError(f"{None if value is None else value.name!r} has no labels")
        return axes

    def slice_constants(self) -> None:
        """Take what goes out of every stored tensor."""
        for value in list(self.graph.initializers()):
            axes = self._axes.get(value.name or "", ())
            keeps = [self.kept(labels) for labels in axes]
            if not all(keep.all() for keep in keeps):
                array = self.graph.array(value)
                for axis, keep in enumerate(keeps):
                    array = array if keep.all() else np.compress(keep, array, axis)
                self.graph.set_array(value, array)

    def mend_shapes(self) -> None:
        """Forget shapes within the model, but at the ends of bodies: those of Loop and Scan must have them to run."""
        main = self.graph.model.graph
        made = {value for node in self.graph.nodes() for value in node.outputs}
        ends = {value for body in main.subgraphs() for value in (*body.inputs, *body.outputs)}
        for value in made - ends - set(main.outputs):
            value.shape = None
        for value in ends - set(main.outputs):
            if value.name in self._axes:
                value.shape = ir.Shape([size if is_fixed else None for size, is_fixed in self.shape_after(value)])
            elif value.shape is not None and not value.is_initializer():
                value.shape = ir.Shape([None] * value.shape.rank())

    def shape_after(self, value: ir.Value) -> list[tuple[int, bool]]:
        """For every axis the size after the removal with the first numbers, and whether it is that for all inputs."""
        first, second = self.sizes.of(value), self.sizes.again(value)
        return [
            (self.size(value, axis), second is not None and first is not None and first[axis] == second[axis])
            for axis in range(len(first or ()))
        ]

    def ratio(self, value: ir.Value, axis: int) -> tuple[int, int]:
        """What stays of an axis, as a fraction in lowest terms."""
        kept, total = self.size(value, axis), len(self._labels(value)[axis])
        common = math.gcd(kept, total)
        return kept // common, total // common
