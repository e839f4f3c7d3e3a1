"""Rewrites a graph to float16: every float32 value takes the type its producer gives it, and consumers cast.

A node is an island when it stays float32. Bodies of If, Loop and Scan follow the same rule; what crosses their borders
is float16 unless the node that holds them is an island. Which nodes are islands is decided elsewhere.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor
from worker.engine.quantization.half_precision.operators import (
    FLOAT,
    HALF,
    LARGEST,
    bodies,
    gives_half,
    is_float,
    wants_half,
)


class HalfRewriter:
    """Rewrites `graph` in place; `keep_io` leaves the types of its inputs and outputs."""

    def __init__(self, graph: Graph, islands: Collection[ir.Node], *, keep_io: bool) -> None:
        self._graph, self._islands, self._keep_io = graph, islands, keep_io
        self._editor = Editor(graph)
        self._holders = {body: node for node in graph.nodes() for body in bodies(node)}
        self._casts: dict[tuple[ir.Value, ir.DataType, ir.Graph], ir.Value] = {}

    def run(self) -> None:
        """Decide every type first, then place casts, then change types: a half-changed graph is never read."""
        nodes = list(self._graph.nodes())
        graphs = list(self._graph.model.graphs())
        halves = [value for each in graphs for value in _values(each) if is_float(value) and self._becomes_half(value)]
        kinds = dict.fromkeys(halves, HALF)
        wishes = [
            (node, index, value, self._wanted(node, index))
            for node in nodes
            for index, value in enumerate(node.inputs)
            if value is not None and is_float(value)
        ]
        outputs = [(each, i, value) for each in graphs for i, value in enumerate(each.outputs) if is_float(value)]
        for node, index, value, wanted in wishes:
            if kinds.get(value, FLOAT) != wanted and node.graph is not None:
                node.replace_input_with(index, self._cast(value, wanted, node.graph))
        for owner, index, value in outputs:
            wanted = self._border(owner)
            if kinds.get(value, FLOAT) != wanted:
                self._cast_output(owner, index, value, wanted)
        for node in nodes:
            _retype_attributes(node, kinds)
        for value in halves:
            self._make_half(value)

    def _becomes_half(self, value: ir.Value) -> bool:
        producer = value.producer()
        if producer is not None:
            return self._gives_half(producer, value.index() or 0)
        if value.is_initializer() and not value.is_graph_input():
            return value.is_graph_output() or any(self._wanted(use.node, use.idx) == HALF for use in value.uses())
        return value.graph is not None and self._border(value.graph) == HALF

    def _border(self, graph: ir.Graph) -> ir.DataType:
        """The type of float inputs and outputs of the main graph or a body."""
        stays = self._holders[graph] in self._islands if graph in self._holders else self._keep_io
        return FLOAT if stays else HALF

    def _wanted(self, node: ir.Node, index: int) -> ir.DataType:
        if node in self._islands:
            return FLOAT
        return HALF if bodies(node) or wants_half(node, index, self._graph.opset) else FLOAT

    def _gives_half(self, node: ir.Node, index: int) -> bool:
        if node in self._islands:
            return False
        return bool(bodies(node)) or gives_half(node, index, self._graph.opset)

    def _cast(self, value: ir.Value, kind: ir.DataType, owner: ir.Graph) -> ir.Value:
        """`value` in another type, made once for each graph or body that wants it."""
        key = (value, kind, owner)
        if key not in self._casts:
            cast = self._make_cast(value, kind)
            producer = value.producer()
            if producer is not None and producer.graph is owner:
                owner.insert_after(producer, cast)
            else:
                owner.insert_before(owner[0], cast)
            self._casts[key] = cast.outputs[0]
        return self._casts[key]

    def _cast_output(self, owner: ir.Graph, index: int, value: ir.Value, kind: ir.DataType) -> None:
        """Cast a graph's output at its end, the new value taking over the name."""
        name = value.name
        cast = self._make_cast(value, kind)
        owner.append(cast)
        owner.outputs[index] = cast.outputs[0]
        if not value.is_graph_input() and not value.is_initializer():
            value.name = self._editor.free_name(f"{name}_{HALF.name.lower()}")
            cast.outputs[0].name = name

    def _make_cast(self, value: ir.Value, kind: ir.DataType) -> ir.Node:
        wish = [f"{value.name}_{kind.name.lower()}"]
        cast = self._editor.node("Cast", [value], wish, [ir.AttrInt64("to", kind.value)])
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(kind), value.shape
        return cast

    def _make_half(self, value: ir.Value) -> None:
        if value.const_value is not None and value.is_initializer():
            self._graph.set_array(value, to_half(self._graph.array(value)))
        value.type = ir.TensorType(HALF)


def to_half(array: np.ndarray) -> np.ndarray:
    """Nearest float16; finite values stay finite."""
    finite = np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), array)
    return finite.astype(np.float16)


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*dict.fromkeys([*graph.inputs, *graph.initializers.values(), *made])]


def _retype_attributes(node: ir.Node, kinds: dict[ir.Value, ir.DataType]) -> None:
    """A Cast to float32 whose result is float16 from now on casts to float16."""
    if node.op_type == "Cast" and node.outputs[0] in kinds:
        node.attributes["to"] = ir.AttrInt64("to", HALF.value)
