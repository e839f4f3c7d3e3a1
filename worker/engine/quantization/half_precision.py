"""Rewrites a graph to float16: every float32 value takes the type its producer gives it, and consumers cast.

A node is an island when it stays float32. Bodies of If, Loop and Scan follow the same rule, and float16 crosses their
borders. Which nodes are islands is decided elsewhere.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
LARGEST = 65504.0
_HALF_TENSOR = "tensor(float16)"
_TYPED_BY_ATTRIBUTE = frozenset(
    {"Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "Multinomial"}
)
_SCALES_AND_REGION = frozenset({"Resize", "Upsample"})


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is a float32 tensor."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == FLOAT


def obstacle_in_operator(node: ir.Node, opset: int) -> str | None:
    """Why a node's operator cannot work on float16; None if it can, or if it only passes bodies' values on."""
    if _bodies(node):
        return None
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    if any(not isinstance(value.type, ir.TensorType) for value in values):
        return f"{node.op_type} has values of unknown type or that are no tensors"
    if node.domain or not onnx.defs.has(node.op_type, ""):
        return f"{node.op_type} is no standard operator"
    if node.op_type in _TYPED_BY_ATTRIBUTE:
        return f"{node.op_type} states its type itself"
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    touched = [(value, schema.inputs, index) for index, value in enumerate(node.inputs)]
    touched += [(value, schema.outputs, index) for index, value in enumerate(node.outputs)]
    floats = [_takes_half(schema, formal, index) for value, formal, index in touched if is_float(value)]
    return f"{node.op_type} takes no float16" if floats and not any(floats) else None


class HalfRewriter:
    """Rewrites `graph` in place; `keep_io` leaves the types of its inputs and outputs."""

    def __init__(self, graph: Graph, islands: Collection[ir.Node], *, keep_io: bool) -> None:
        self._graph, self._islands, self._keep_io = graph, islands, keep_io
        self._editor = Editor(graph)
        self._casts: dict[tuple[ir.Value, ir.DataType, ir.Graph], ir.Value] = {}

    def run(self) -> None:
        """Decide every type first, then place casts, then change types: a half-changed graph is never read."""
        main, nodes = self._graph.model.graph, list(self._graph.nodes())
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
            wanted = FLOAT if owner is main and self._keep_io else HALF
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
        is_main_input = value.is_graph_input() and value.graph is self._graph.model.graph
        return not (is_main_input and self._keep_io)

    def _wanted(self, node: ir.Node, index: int) -> ir.DataType:
        if _bodies(node):
            return HALF
        fixed = node in self._islands or (node.op_type in _SCALES_AND_REGION and index > 0)
        schema = None if fixed else onnx.defs.get_schema(node.op_type, self._graph.opset, "")
        return HALF if schema and _takes_half(schema, schema.inputs, index) else FLOAT

    def _gives_half(self, node: ir.Node, index: int) -> bool:
        if _bodies(node):
            return True
        if node in self._islands:
            return False
        schema = onnx.defs.get_schema(node.op_type, self._graph.opset, "")
        return _takes_half(schema, schema.outputs, index)

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


def _bodies(node: ir.Node) -> bool:
    return any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for each in node.attributes.values())


def _takes_half(schema: onnx.defs.OpSchema, formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> bool:
    parameter = formal[min(index, len(formal) - 1)]  # the last one may be variadic
    constraint = next((each for each in schema.type_constraints if each.type_param_str == parameter.type_str), None)
    return _HALF_TENSOR in (constraint.allowed_type_strs if constraint else [parameter.type_str])


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*dict.fromkeys([*graph.inputs, *graph.initializers.values(), *made])]


def _retype_attributes(node: ir.Node, kinds: dict[ir.Value, ir.DataType]) -> None:
    """A Cast to float32 whose result is float16 from now on casts to float16."""
    if node.op_type == "Cast" and node.outputs[0] in kinds:
        node.attributes["to"] = ir.AttrInt64("to", HALF.value)
