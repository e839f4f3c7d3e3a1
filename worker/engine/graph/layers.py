"""Layers: the nodes that carry weights, where their weights lie and along which axes. No numbers are read here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from app.contracts.failure import SlimlineError
from app.contracts.layer_names import is_chosen, matches
from worker.engine.wording import shortened


@dataclass(frozen=True)
class Layer:
    """A weight-carrying node.

    `weights` are initializers, the main one first; biases and scales are not among them. `output_axis` counts their
    output channels (for a grouped ConvTranspose, those of one group); `reduction_axes` are summed over.
    """

    name: str
    op: str
    node: ir.Node
    weights: list[ir.Value]
    output_axis: int
    reduction_axes: tuple[int, ...]

    @property
    def weight(self) -> ir.Value:
        """The main weight."""
        return self.weights[0]


@dataclass(frozen=True)
class _Slots:
    """Which inputs of an operator are weights, and the axes of what arrives there. No reduction axes: all others."""

    inputs: tuple[int, ...]
    output_axis: int
    reduction_axes: tuple[int, ...] = ()


_MATRIX_RIGHT = _Slots((1,), -1)
_MATRIX_LEFT = _Slots((0,), -2, (-1,))
_RECURRENT = _Slots((1, 2), 1, (2,))
_SLOTS: Mapping[str, tuple[_Slots, ...]] = {
    "Conv": (_Slots((1,), 0),),
    "FusedConv": (_Slots((1,), 0),),
    "ConvInteger": (_Slots((1,), 0),),
    "QLinearConv": (_Slots((3,), 0),),
    "ConvTranspose": (_Slots((1,), 1),),
    "Gemm": (_MATRIX_RIGHT,),
    "QGemm": (_Slots((3,), -1),),
    "MatMul": (_Slots((1,), -1, (-2,)), _MATRIX_LEFT),
    "FusedMatMul": (_Slots((1,), -1, (-2,)),),
    "MatMulInteger": (_Slots((1,), -1, (-2,)), _MATRIX_LEFT),
    "MatMulIntegerToFloat": (_Slots((1,), -1, (-2,)),),
    "DynamicQuantizeMatMul": (_Slots((1,), -1, (-2,)),),
    "QLinearMatMul": (_Slots((3,), -1, (-2,)),),
    "LSTM": (_RECURRENT,),
    "GRU": (_RECURRENT,),
    "RNN": (_RECURRENT,),
    "DynamicQuantizeLSTM": (_Slots((1, 2), 2, (1,)),),
    "Attention": (_Slots((1,), -1, (-2,)),),
    "QAttention": (_Slots((1,), -1, (-2,)),),
    "Gather": (_Slots((0,), 1, (0,)),),
}
_MICROSOFT_ONLY = frozenset({"Attention"})
"""ONNX's own operator of that name reads no weights."""
_TABLE_RANK = _PAIR = 2
_CARRIERS = frozenset({"DequantizeLinear", "QuantizeLinear", "Identity", "Cast", "Transpose"})


def find_layers(nodes: Iterable[ir.Node]) -> list[Layer]:
    """The nodes among `nodes` that read initializers of rank 2 or more as weights."""
    return [layer for node in nodes if (layer := _as_layer(node))]


def select_layers(layers: Sequence[Layer], include: Sequence[str], exclude: Sequence[str]) -> list[Layer]:
    """Layers that match `include` (empty: all) and not `exclude`. Raises SlimlineError LAYER_UNKNOWN."""
    for pattern in (*include, *exclude):
        if not any(matches(layer.name, pattern) for layer in layers):
            raise SlimlineError(
                "LAYER_UNKNOWN",
                f"no layer is called {shortened(pattern)!r}",
                hint=f"names and globs of layers are taken; this model has {_sample(layers)}",
            )
    return [layer for layer in layers if is_chosen(layer.name, include, exclude)]


def trace_weight(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """The initializer behind `value`, through DequantizeLinear, Identity, Cast and Transpose.

    Comes with the order of its axes: axis i of `value` is axis `order[i]` of the initializer. None where something
    computed is behind it.
    """
    perms: list[Sequence[int] | None] = []
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or node.op_type not in _CARRIERS:
            return None
        if node.op_type == "Transpose":
            perms.append(node.attributes["perm"].as_ints() if "perm" in node.attributes else None)
        value = node.inputs[0]
    if value is None or value.shape is None or value.is_graph_input():
        return None
    order = tuple(range(value.shape.rank()))
    for perm in reversed(perms):
        order = tuple(order[axis] for axis in perm) if perm else order[::-1]
    return value, order


def _as_layer(node: ir.Node) -> Layer | None:
    if node.op_type in _MICROSOFT_ONLY and not node.domain:
        return None
    if node.op_type == "Einsum":
        return _as_einsum_layer(node)
    for slots in _SLOTS.get(node.op_type, ()):
        traced = [trace_weight(node.inputs[index]) for index in slots.inputs if index < len(node.inputs)]
        found = [hit for hit in traced if hit and len(hit[1]) > 1]
        if len(found) == len(slots.inputs) and _is_weight(node, found[0][0]):
            order = found[0][1]
            output, reduction = _axes(node, slots, len(order))
            name = node.name or node.outputs[0].name or ""
            weights = [value for value, _ in found]
            return Layer(name, node.op_type, node, weights, order[output], tuple(sorted(order[r] for r in reduction)))
    return None


def _as_einsum_layer(node: ir.Node) -> Layer | None:
    """A product of one stored tensor and one computed: what only the weight and the output share are its channels."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    terms, _, output = equation.partition("->")
    stored = [place for place, value in enumerate(node.inputs) if trace_weight(value) is not None]
    if len(stored) != 1 or len(node.inputs) != _PAIR or not output or "." in equation:
        return None
    own, other = terms.split(",")[stored[0]], terms.split(",")[1 - stored[0]]
    channels = [axis for axis, letter in enumerate(own) if letter in output and letter not in other]
    summed = [axis for axis, letter in enumerate(own) if letter in other and letter not in output]
    traced = trace_weight(node.inputs[stored[0]])
    if traced is None or not channels or len(own) != len(set(own)) or not _is_weight(node, traced[0]):
        return None
    value, order = traced
    name = node.name or node.outputs[0].name or ""
    return Layer(name, node.op_type, node, [value], order[channels[0]], tuple(sorted(order[axis] for axis in summed)))


def _is_weight(node: ir.Node, value: ir.Value) -> bool:
    """Whole numbers are shape arithmetic, and so are Gathers but those that look rows up in a table: embeddings."""
    if value.dtype in (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING, None):
        return False
    if node.op_type != "Gather":
        return True
    return value.shape is not None and value.shape.rank() == _TABLE_RANK and _int(node, "axis", 0) in (0, -_TABLE_RANK)


def _axes(node: ir.Node, slots: _Slots, rank: int) -> tuple[int, tuple[int, ...]]:
    output, reduction = slots.output_axis % rank, tuple(axis % rank for axis in slots.reduction_axes)
    if _int(node, "transB", 0):
        output, reduction = rank - 2, (rank - 1,)
    return output, reduction or tuple(axis for axis in range(rank) if axis != output)


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _sample(layers: Sequence[Layer], shown: int = 8) -> str:
    names = ", ".join(shortened(layer.name) for layer in layers[:shown])
    return f"{names} and {len(layers) - shown} more" if len(layers) > shown else names or "none"
