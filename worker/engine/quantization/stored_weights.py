"""How the weights of layers are stored as integers: cut into rows and columns, packed for a kernel or not.

Nothing is rounded or rewritten here. Legend: K columns, N output channels.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import onnx_ir as ir

from app.contracts.recipe.quantize_weights import QuantizeWeights
from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.nodes import attribute
from worker.engine.quantization.obstacles import obstacle_in_types
from worker.engine.quantization.weight_matrix import WeightMatrix, shape_of
from worker.engine.tensors.blockwise import Grid

_WEIGHT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (0, 1),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_CARRIERS = frozenset({"Cast", "Identity", "Transpose"})
_MATRIX, _BIAS = 2, 2
_SMALLEST_BLOCK = 16
_BYTE, _FLOAT_BITS, _SCALE_BITS = 8, 32, 32


class _Default(NamedTuple):
    block_size: int | None
    symmetric: bool


_DEFAULTS: Mapping[int, _Default] = {4: _Default(32, symmetric=False), 8: _Default(None, symmetric=True)}
"""By bits. A zero point takes a quarter off the squared error, which 4 bits need; with 8 bits there is little of it."""


class Form(Enum):
    """How a weight is stored."""

    PACKED = auto()
    """For MatMulNBits, [N, blocks, bytes]."""
    TURNED = auto()
    """Before a DequantizeLinear as [K, N], the one way round that ONNX Runtime fuses it with a product."""
    IN_PLACE = auto()
    """Before a DequantizeLinear that gives what was there; several column axes are stored as one."""


@dataclass(frozen=True)
class StoredWeight(WeightMatrix):
    """A weight and how it is stored: blocks lie along the columns."""

    grid: Grid
    form: Form

    @property
    def has_row_scales(self) -> bool:
        """Whether each index of one axis has one scale."""
        return len(self.rows) == 1 and self.grid.block_size >= self.width

    @property
    def needs_new_types(self) -> bool:
        """Whether its DequantizeLinear is one of opset 21, with 4 bits or blocks."""
        return self.form is not Form.PACKED and (self.grid.bits < _BYTE or not self.has_row_scales)

    @property
    def bits_stored(self) -> int:
        """With scales and zero points."""
        rows, blocks = math.prod(self.shape) // self.width, self.grid.count_blocks(self.width)
        width = blocks * self.grid.block_size if self.form is Form.PACKED else self.width
        zero_bits = 0 if self.grid.symmetric else self.grid.bits
        return rows * (width * self.grid.bits + blocks * (_SCALE_BITS + zero_bits))


def obstacle_in_layer(layer: Layer, step: QuantizeWeights, excluded: Collection[int] = ()) -> str | None:
    """Why the weights of `layer` stay as they are. `excluded`: ids of nodes whose weights nobody may change."""
    if layer.op not in _WEIGHT_INPUTS:
        return f"the weights of {layer.op} are not stored as integers by this method"
    told = (_obstacle_in_readers(weight, excluded) for weight in layer.weights)
    if reason := obstacle_in_types(layer) or next(filter(None, told), None):
        return reason
    if layer.op not in _PRODUCTS and not all(map(_comes_as_it_is, _weight_inputs(layer))):
        return "its weights come through a Transpose"
    if any(0 in shape_of(weight) for weight in layer.weights):
        return "its weights are empty"
    stored = [_plan(weight, [layer], step) for weight in layer.weights]
    before = sum(math.prod(each.shape) * _FLOAT_BITS for each in stored)
    return None if sum(each.bits_stored for each in stored) < before else "its weights are too few to gain by it"


def plan_storage(graph: Graph, layers: Sequence[Layer], step: QuantizeWeights) -> list[StoredWeight]:
    """How each weight of `layers` is stored, in the order of the graph; a weight of several layers comes once."""
    readers: dict[int, list[Layer]] = {}
    for layer in graph.layers():
        for weight in layer.weights:
            readers.setdefault(id(weight), []).append(layer)
    weights = {id(weight): weight for layer in layers for weight in layer.weights}
    return [_plan(weight, readers[key], step) for key, weight in weights.items()]


def _plan(weight: ir.Value, readers: Sequence[Layer], step: QuantizeWeights) -> StoredWeight:
    shape, layer = shape_of(weight), _leading(readers)
    default = _DEFAULTS[step.bits]
    size = default.block_size if step.block_size == "auto" else step.block_size
    symmetric = default.symmetric if step.symmetric is None else step.symmetric
    rows, columns = _axes(layer, len(shape), blocked=size is not None)
    width = math.prod(shape[axis] for axis in columns)
    product = step.kernel == "auto" and _is_plain_product(weight, readers)
    if size is not None and width >= _SMALLEST_BLOCK and product and all(map(_can_pack, readers)):
        fitting = 1 << (width - 1).bit_length()
        return StoredWeight(weight, readers, rows, columns, Grid(step.bits, symmetric, min(size, fitting)), Form.PACKED)
    if size is None or width <= (size if len(rows) == 1 else _SMALLEST_BLOCK - 1):
        rows, columns = _axes(layer, len(shape), blocked=False)
        grid = Grid(step.bits, symmetric, math.prod(shape[axis] for axis in columns))
        return StoredWeight(weight, readers, rows, columns, grid, Form.TURNED if product else Form.IN_PLACE)
    return StoredWeight(weight, readers, rows, columns, Grid(step.bits, symmetric, size), Form.IN_PLACE)


def _axes(layer: Layer, rank: int, *, blocked: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of rows and of columns; unless `blocked`, a row is an output channel, or a word of an embedding."""
    match layer.op:
        case "Conv":
            channel, along = 0, tuple(range(1, rank))
        case "ConvTranspose":
            channel, along = 1, (0,)
        case "Gather":
            channel, along = 0, (1,)
        case "LSTM" | "GRU" | "RNN":
            channel, along = 1, (2,)
        case _:
            channel, along = layer.output_axis, layer.reduction_axes[:1]
    rows = tuple(axis for axis in range(rank) if axis not in along) if blocked else (channel,)
    return rows, tuple(axis for axis in range(rank) if axis not in rows)


def _leading(readers: Sequence[Layer]) -> Layer:
    """The reader whose channels and reduction decide: one that multiplies, rather than one that looks up."""
    return next((layer for layer in readers if layer.op != "Gather"), readers[0])


def _is_plain_product(weight: ir.Value, readers: Sequence[Layer]) -> bool:
    """Whether it is a matrix that all readers multiply by from the right, along the same axis."""
    return (
        len(shape_of(weight)) == _MATRIX
        and all(layer.op in _PRODUCTS and _is_float_matrix(layer.node.inputs[1]) for layer in readers)
        and len({layer.reduction_axes for layer in readers}) == 1
    )


def _is_float_matrix(value: ir.Value | None) -> bool:
    """Whether it is a weight, as float32; a Cast may stand between."""
    return value is not None and value.dtype == ir.DataType.FLOAT and trace_weight(value) is not None


def _can_pack(layer: Layer) -> bool:
    """Whether MatMulNBits, and an Add of the bias, can stand for the node."""
    node = layer.node
    if layer.op == "MatMul":
        left = node.inputs[0].shape if node.inputs[0] is not None else None
        return left is not None and left.rank() >= _MATRIX
    has_bias = len(node.inputs) > _BIAS and node.inputs[_BIAS] is not None
    plain_bias = not has_bias or attribute(node, "beta", 1) == 1
    return not attribute(node, "transA", 0) and attribute(node, "alpha", 1) == 1 and plain_bias


def _obstacle_in_readers(weight: ir.Value, excluded: Collection[int]) -> str | None:
    values = list(_turned(weight))
    if any(value.is_graph_output() for value in values):
        return "its weights are an output of the model"
    readers = [use for value in values for use in value.uses() if use.node.op_type not in _CARRIERS]
    others = {node.op_type for node, index in readers if index not in _WEIGHT_INPUTS.get(node.op_type, ())}
    if others:
        return f"its weights are read by {', '.join(sorted(others))} too"
    left_out = next((node.name for node, _ in readers if id(node) in excluded), None)
    return f"{left_out}, which the step excludes, reads the same weights" if left_out else None


def _turned(value: ir.Value) -> Iterator[ir.Value]:
    """`value` and what nodes make of it that only turn or copy it."""
    yield value
    for node, _ in value.uses():
        if node.op_type in _CARRIERS:
            yield from _turned(node.outputs[0])


def _weight_inputs(layer: Layer) -> list[ir.Value]:
    inputs = layer.node.inputs
    return [value for index in _WEIGHT_INPUTS[layer.op] if (value := inputs[index]) is not None]


def _comes_as_it_is(value: ir.Value) -> bool:
    traced = trace_weight(value)
    return traced is not None and traced[1] == tuple(range(len(traced[1])))
