"""What each stored tensor of a graph is to it: a layer's weight, a bias, a normalization's scale, or a constant."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.graph.shapes import sizes
from worker.engine.students.flow import Flow

_LARGEST = 1e3
"""Numbers beyond it are no parameters; masks of attention are made of them."""


class Role(StrEnum):
    """What a parameter is, as far as its first value depends on it."""

    WEIGHT = "weight"
    TABLE = "table"
    TIED_TABLE = "table that is a weight too"
    RECURRENT = "weight or bias of a recurrent layer"
    POSITION = "position or token embedding"
    SCALE = "scale"
    SHIFT = "shift"
    SLOPE = "slope"


@dataclass(frozen=True)
class Part:
    """An initializer that is a parameter. `fan_in`: products summed for each output; of a recurrent layer its units."""

    value: ir.Value
    role: Role
    fan_in: int = 1


_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_NORMALIZATIONS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization")
_INPUTS: Mapping[tuple[str, int], Role] = {
    **{(op, 1): Role.SCALE for op in (*_NORMALIZATIONS, "RMSNormalization", "SimplifiedLayerNormalization")},
    **{(op, 2): Role.SHIFT for op in _NORMALIZATIONS},
    ("BatchNormalization", 3): Role.SHIFT,
    ("BatchNormalization", 4): Role.SCALE,
    **{(op, 2): Role.SHIFT for op in ("Conv", "ConvTranspose", "Gemm", "FusedConv")},
    **{(op, 3): Role.RECURRENT for op in _RECURRENT},
    ("PRelu", 1): Role.SLOPE,
}
"""What arrives at an operator's input."""
_VECTORS: Mapping[str, Role] = {"Mul": Role.SCALE, "Add": Role.SHIFT}
"""What a vector is that meets what a layer made."""
_JOINS = frozenset({"Add", "Concat", "Expand"})


def find_parts(graph: Graph) -> list[Part]:
    """The parameters of `graph`, each once, in the order of its initializers. All others are constants.

    Vectors that meet what no layer made, or what goes to no other layer, are constants: means of inputs, strides and
    anchors of detectors. So are tables that layers look up nothing in, tensors of one number, and masks.
    """
    reach = _Reach(graph)
    found: dict[str, Part] = {}
    for part in (*_of_layers(graph, reach), *_of_nodes(graph, reach)):
        found.setdefault(part.value.name or "", part)
    return [found[name] for value in graph.initializers() if (name := value.name or "") in found]


class _Reach:
    """What depends on data, what layers made, and what goes to a layer."""

    def __init__(self, graph: Graph) -> None:
        flow = Flow(graph)
        self.layers = {id(layer.node) for layer in graph.layers()}
        nodes = [layer.node for layer in graph.layers()]
        self.data = flow.after(value for value in graph.model.graph.inputs if not value.is_initializer())
        self.made = flow.after(value for node in nodes for value in node.outputs)
        self.leads_on = flow.before(value for node in nodes for value in node.inputs if value is not None)


def _of_layers(graph: Graph, reach: _Reach) -> Iterator[Part]:
    """Weights of layers that read data; those by which a graph computes its constants are none, embeddings always."""
    readers: dict[str, list[Layer]] = {}
    for layer in graph.layers():
        if layer.op == "Gather" or any(value in reach.data for value in layer.node.inputs):
            for weight in layer.weights:
                readers.setdefault(weight.name or "", []).append(layer)
    for name, layers in readers.items():
        yield _as_part(graph.initializer(name), layers)


def _as_part(weight: ir.Value, layers: list[Layer]) -> Part:
    operators = {layer.op for layer in layers}
    if operators & _RECURRENT:
        return Part(weight, Role.RECURRENT, _shape(layers[0].weights[-1])[-1])
    if operators == {"Gather"}:
        return Part(weight, Role.TABLE)
    axis = next(layer.output_axis for layer in layers if layer.op != "Gather")
    fan_in = int(np.prod(_shape(weight))) // _shape(weight)[axis]
    return Part(weight, Role.TIED_TABLE if "Gather" in operators else Role.WEIGHT, fan_in)


def _of_nodes(graph: Graph, reach: _Reach) -> Iterator[Part]:
    for node in graph.nodes():
        for index, value in enumerate(node.inputs):
            stored = trace_weight(value)
            role = _role(node, index, stored[0], reach) if stored and _is_float(stored[0]) else None
            if stored and role:
                yield Part(stored[0], role, _hidden(node) if role is Role.RECURRENT else 1)


def _role(node: ir.Node, index: int, value: ir.Value, reach: _Reach) -> Role | None:
    if (node.op_type, index) in _INPUTS:
        return _INPUTS[node.op_type, index]
    wide_axes = sum(size > 1 for size in _shape(value))
    if wide_axes == 1 and node.op_type in _VECTORS:
        return _VECTORS[node.op_type] if _is_inner(node, reach) else None
    is_joined = wide_axes > 0 and node.op_type in _JOINS and node.outputs[0] in reach.leads_on
    return Role.POSITION if is_joined and _is_learnable(value) else None


def _is_inner(node: ir.Node, reach: _Reach) -> bool:
    """Whether `node` gets what a layer made, right from there or on the way to another layer."""
    others = [value for value in node.inputs if value is not None and value in reach.made]
    comes_from_layer = any(id(value.producer()) in reach.layers for value in others)
    return bool(others) and (comes_from_layer or node.outputs[0] in reach.leads_on)


def _is_learnable(value: ir.Value) -> bool:
    numbers = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
    return bool(np.abs(numbers).max(initial=0) <= _LARGEST and (numbers != numbers.flat[0]).any())


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _hidden(node: ir.Node) -> int:
    return node.attributes["hidden_size"].as_int()


def _shape(value: ir.Value) -> tuple[int, ...]:
    return sizes(value) or ()
