"""Sizes of tensors and small constants of a graph whose free dimensions are given numbers. No labels here.

Free dimensions get numbers twice, different ones: what is the same both times does not depend on the input.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from app.contracts.failure import SlimlineError
from worker.engine.graph import shapes
from worker.engine.graph.channels.propagation import Propagation
from worker.engine.graph.graph import Graph

ShapeOf = Callable[[ir.Value | None], tuple[int, ...] | None]
"""Gives shapes: `Sizes.of` or `Sizes.again`."""
_BATCHES = (11, 13)
"""Primes that hardly any width is a multiple of: a target shape that only suits one sample is not taken for another."""
_FREE = ((64, 96), (16, 24), (224, 256), (512, 640), (128, 192), (7, 9))
"""Pairs to try for free dimensions beside the batch: image sides and lengths of sequences that models take."""


class Sizes:
    """What is known of the nodes and values of `graph`, which have names of their own. Its shapes are not touched."""

    def __init__(self, graph: Graph) -> None:
        """Raises SlimlineError SHAPES_CONFLICT where no numbers for the free dimensions suit the graph."""
        self._bound = _try_numbers(graph)

    def of(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The shape with the first numbers; None where a dimension is not known even so."""
        return self._bound[0].shape(value)

    def again(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The shape with the second numbers."""
        return self._bound[1].shape(value)

    def constant(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        """The numbers of a node's small input that are the same whatever is fed to the graph, or None."""
        first, second = (bound.array(node, index) for bound in self._bound)
        return first if first is not None and second is not None and np.array_equal(first, second) else None

    def placeholders(self, node: ir.Node, index: int, length: int) -> list[bool]:
        """Which numbers of a node's target shape stand for another size: 0 and -1, and for Expand 1."""
        found = self._bound[0].array(node, index)
        return [False] * length if found is None else [int(number) in (-1, 0, 1) for number in found]


class _Bound:
    """A copy of a graph with sizes in place of its free dimensions, and what follows from them."""

    def __init__(self, graph: Graph, batch: int, free: int) -> None:
        copy = graph.clone()
        _bind(copy, batch, free)
        self._propagation = Propagation(copy)
        self.failures = len(self._propagation.failed)
        self._values: dict[str, ir.Value] = {}
        for each in copy.model.graphs():
            self._values.update(ir.convenience.create_value_mapping(each))
        self._nodes = {node.name: node for node in copy.nodes()}

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        found = None if value is None else self._values.get(value.name or "")
        return None if found is None else shapes.sizes(found)

    def array(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        same = self._nodes.get(node.name)
        if same is None or index >= len(same.inputs):
            return None
        return self._propagation.array(same.inputs[index])


def _try_numbers(graph: Graph) -> tuple[_Bound, _Bound]:
    """The first pair that suits every node, else the one that suits most."""
    refusal: SlimlineError | None = None
    found: list[tuple[_Bound, _Bound]] = []
    for pair in _FREE if _is_free(graph) else _FREE[:1]:
        try:
            found.append((_Bound(graph, _BATCHES[0], pair[0]), _Bound(graph, _BATCHES[1], pair[1])))
        except SlimlineError as error:
            refusal = refusal or error
        else:
            if not any(bound.failures for bound in found[-1]):
                break
    if not found:
        raise refusal or SlimlineError("SHAPES_CONFLICT", "no sizes of the free dimensions suit the graph")
    return min(found, key=lambda bounds: sum(bound.failures for bound in bounds))


def _free_names(graph: Graph) -> tuple[set[str], set[str]]:
    """Names of free dimensions: those that lead, taken for the batch, and the others."""
    known = [shapes.dims(value) or [] for value in graph.model.graph.inputs if not value.is_initializer()]
    leading = {dims[0] for dims in known if dims and isinstance(dims[0], str)}
    others = {dim for dims in known for dim in dims if isinstance(dim, str)} - leading
    return leading, others


def _is_free(graph: Graph) -> bool:
    """Whether dimensions beside the batch are free."""
    nameless = any(None in (shapes.dims(value) or [None])[1:] for value in graph.model.graph.inputs)
    return bool(_free_names(graph)[1]) or nameless


def _bind(graph: Graph, batch: int, free: int) -> None:
    leading, others = _free_names(graph)
    shapes.bind(graph.model.graph, {**dict.fromkeys(others, free), **dict.fromkeys(leading, batch)})
    for value in graph.model.graph.inputs:
        if value.shape is not None and not value.is_initializer():
            filled = [free if place else batch for place in range(value.shape.rank())]
            dims = zip(value.shape, filled, strict=True)
            value.shape = ir.Shape([dim if isinstance(dim, int) else number for dim, number in dims])
    carried = [value for body in graph.model.graph.subgraphs() for value in body.inputs]
    for value in [*carried, *(value for node in graph.nodes() for value in node.outputs), *graph.model.graph.outputs]:
        value.shape = None
