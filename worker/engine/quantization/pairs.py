"""Writes a placement into a graph: Q/DQ pairs, integer weights and biases. What is placed where is `placement`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from app.contracts.recipe.quantize_static import ActivationQuantization, WeightQuantization
from worker.engine.graph import Graph, Layer
from worker.engine.graph.edit import Editor, drop_dead, owner_of
from worker.engine.graph.layers import find_layers, trace_weight
from worker.engine.quantization.integer_weights import (
    LARGEST_BIAS,
    IntegerWeight,
    WeightRequest,
    smallest_scale_for,
    to_integer_bias,
    to_integers,
)
from worker.engine.quantization.nodes import attribute
from worker.engine.quantization.placement import Placement, Way, decide, flowing_inputs, readers
from worker.engine.quantization.target import Target
from worker.engine.session import Array
from worker.engine.tensors.affine import SMALLEST_SCALE, STORED, IntegerRange, affine_parameters

Range = tuple[float, float]
_WEIGHT, _BIAS = 1, 2
_QUANTIZED_UNASKED = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class Scheme:
    """How everything placed becomes integer. Keys of the mappings are names of layers.

    `weight_bits` are exceptions from `weights.bits`; `shifts`, shape [channels], are taken off the bias.
    """

    target: Target
    weights: WeightQuantization
    activations: ActivationQuantization
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    shifts: Mapping[str, Array] = field(default_factory=dict)
    searches_weights: bool = False


@dataclass(frozen=True)
class Quantizer:
    """Scale, zero point and type of a quantized tensor."""

    scale: np.float32
    zero_point: Array

    @property
    def range(self) -> Range:
        """The real numbers it can hold."""
        limits = np.iinfo(self.zero_point.dtype)
        low, high = ((edge - float(self.zero_point)) * float(self.scale) for edge in (limits.min, limits.max))
        return low, high


@dataclass(frozen=True)
class Quantized:
    """A quantized graph, and what its layers became, by name."""

    graph: Graph
    weights: Mapping[str, IntegerWeight]
    inputs: Mapping[str, Quantizer]
    orders: Mapping[str, tuple[int, ...]]
    """The order of the initializer's axes in which its layer's weight has them."""
    integer_nodes: int
    """Nodes between pairs."""

    def restored(self, layer: str) -> Array:
        """What the weight of `layer` stands for, in the shape of its initializer."""
        return self.weights[layer].floats().transpose(np.argsort(self.orders[layer]))


def quantize_graph(
    graph: Graph, layers: Collection[str], way: Way, ranges: Mapping[str, Range], scheme: Scheme
) -> Quantized:
    """A copy of `graph` with `layers`, given by node name, in integers, and what `way` adds to them.

    `ranges` are of float tensors by name; what touches a tensor without one stays in float.
    """
    copy = graph.clone()
    chosen = {node for node in copy.nodes() if node.name in layers}
    placement = decide(copy, chosen, way, scheme.target, lambda value: (value.name or "") in ranges)
    return _Writer(copy, placement, ranges, scheme).write()


class _Writer:
    def __init__(self, graph: Graph, placement: Placement, ranges: Mapping[str, Range], scheme: Scheme) -> None:
        self._graph, self._placement, self._ranges, self._scheme = graph, placement, ranges, scheme
        self._editor = Editor(graph)
        self._shared: dict[tuple[ir.Value, tuple[int, ...], int], tuple[IntegerWeight, ir.Value]] = {}
        self._quantizers: dict[ir.Value, Quantizer] = {}
        self._parameters: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    def write(self) -> Quantized:
        """Weights first, while the tensors they meet still have their names and readers."""
        for value, root in self._placement.pairs.items():
            self._quantizers[value] = self._quantizer(root)
        weights, inputs, orders = dict[str, IntegerWeight](), dict[str, Quantizer](), dict[str, tuple[int, ...]]()
        for layer in self._graph.layers():
            if layer.node in self._placement.nodes:
                name = layer.node.name or ""
                orders[name] = _order(layer)
                inputs[name] = self._quantizers[flowing_inputs(layer.node)[0][1]]
                weights[name] = self._write_layer(layer, inputs[name])
        for value in self._placement.pairs:
            for node, index in self._write_pair(value):
                if index == 0 and self._scheme.target.quantizes_bias and node not in self._placement.nodes:
                    self._keep_float(node)
        return Quantized(self._graph, weights, inputs, orders, len(self._placement.nodes))

    def _quantizer(self, root: ir.Value) -> Quantizer:
        how, target = self._scheme.activations, self._scheme.target
        integers = IntegerRange.of(how.bits, signed=target.has_signed_activations)
        is_symmetric = how.symmetric or target.has_symmetric_activations
        scale, zero = affine_parameters(*self._ranges[root.name or ""], integers, symmetric=is_symmetric)
        dtype = STORED[how.bits, target.has_signed_activations]
        return Quantizer(np.float32(scale), np.array(zero).astype(dtype))

    def _write_layer(self, layer: Layer, source: Quantizer) -> IntegerWeight:
        node, scale = layer.node, float(source.scale)
        old, bias = node.inputs[_WEIGHT], self._bias(layer)
        weight, restored = self._shared_weight(layer, bias, scale)
        node.replace_input_with(_WEIGHT, restored)
        drop_dead(old)
        if bias is not None:
            self._write_bias(layer, bias, scale, weight)
        if layer.op == "MatMul" and (node.name or "") in self._scheme.shifts:
            self._shift_sum(node, self._scheme.shifts[node.name or ""])
        return weight

    def _shift_sum(self, product: ir.Node, shift: Array) -> None:
        """Take `shift` off the constant vector that is added to a matrix product; where none is, nothing is done."""
        uses = product.outputs[0].uses()
        reader, index = next(iter(uses)) if len(uses) == 1 else (product, 0)
        other = reader.inputs[1 - index] if reader.op_type == "Add" else None
        if other is None or not other.is_initializer() or reader.graph is None:
            return
        bias = self._graph.array(other)
        if bias.shape == shift.shape:
            shifted = (bias.astype(np.float64) - shift).astype(np.float32)
            reader.replace_input_with(
                1 - index, self._editor.initializer(reader.graph, f"{other.name}_corrected", shifted)
            )
            drop_dead(other)

    def _shared_weight(self, layer: Layer, bias: Array | None, input_scale: float) -> tuple[IntegerWeight, ir.Value]:
        """A weight that several layers read is stored once, as the first of them wants it."""
        order = _order(layer)
        request = self._request(layer, order.index(layer.output_axis), bias, input_scale)
        key = (layer.weight, order, request.bits)
        if key not in self._shared:
            weight = to_integers(self._graph.array(layer.weight).transpose(order), request)
            self._shared[key] = weight, self._restore(layer, weight)
        return self._shared[key]

    def _request(self, layer: Layer, axis: int, bias: Array | None, input_scale: float) -> WeightRequest:
        how, target = self._scheme.weights, self._scheme.target
        bits = self._scheme.weight_bits.get(layer.node.name or "", how.bits)
        channels = self._channels(layer)
        smallest = smallest_scale_for(bias if target.quantizes_bias else None, input_scale, channels)
        return WeightRequest(how, bits, min(bits, target.weight_bits), axis, smallest, self._scheme.searches_weights)

    def _restore(self, layer: Layer, weight: IntegerWeight) -> ir.Value:
        """What gives the floats that the weight's integers stand for."""
        owner, name = owner_of(layer.weight), layer.weight.name or layer.name
        zero = np.full(weight.scale.shape, weight.zero_point).astype(weight.codes.dtype)
        arrays = {"quantized": weight.codes, "scale": weight.scale, "zero_point": zero}
        inputs = [self._editor.initializer(owner, f"{name}_{part}", array) for part, array in arrays.items()]
        return self._dequantized(owner, name, inputs, weight.axis, weight.codes.shape)

    def _dequantized(
        self, owner: ir.Graph, name: str, inputs: list[ir.Value], axis: int | None, shape: tuple[int, ...]
    ) -> ir.Value:
        """The output of a DequantizeLinear of constants, before all other nodes of `owner`."""
        along = [] if axis is None else [ir.AttrInt64("axis", axis)]
        node = self._editor.node("DequantizeLinear", inputs, [f"{name}_dequantized"], along)
        _begin(owner, node)
        return _typed(node.outputs[0], ir.Shape(shape))

    def _bias(self, layer: Layer) -> Array | None:
        """The bias to store, shape [channels], less the shift; None where there is none."""
        shift = self._scheme.shifts.get(layer.node.name or "")
        if layer.op == "MatMul":
            return None
        value = layer.node.inputs[_BIAS] if len(layer.node.inputs) > _BIAS else None
        if value is None:
            return None if shift is None else -shift
        channels = self._channels(layer)
        bias = np.broadcast_to(self._graph.array(value).reshape(-1), (channels,)).astype(np.float64)
        return bias if shift is None else bias - shift

    def _write_bias(self, layer: Layer, bias: Array, input_scale: float, weight: IntegerWeight) -> None:
        node, owner = layer.node, owner_of(layer.node)
        old = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
        name = (old.name if old is not None else None) or f"{layer.weight.name}_bias"
        if self._scheme.target.quantizes_bias:
            codes, scales = to_integer_bias(bias, input_scale, weight)
            arrays = {"quantized": codes, "scale": scales}
            inputs = [self._editor.initializer(owner, f"{name}_{part}", array) for part, array in arrays.items()]
            new = self._dequantized(owner, name, inputs, None if weight.axis is None else 0, bias.shape)
        else:
            new = self._editor.initializer(owner, f"{name}_corrected", bias.astype(np.float32))
        node.resize_inputs(_BIAS + 1)
        node.replace_input_with(_BIAS, new)
        drop_dead(old)

    def _keep_float(self, node: ir.Node) -> None:
        """Store the bias of a layer that stays in float as integers, fine enough to lose nothing.

        ONNX Runtime quantizes float weights to one scale each where a layer reads a DequantizeLinear, as if it had been
        asked to (WeightBiasQuantization); not where the bias comes out of one too.
        """
        weight = node.inputs[_WEIGHT] if node.op_type in _QUANTIZED_UNASKED and not node.domain else None
        bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
        is_at_risk = weight is not None and weight.is_initializer() and (bias is None or bias.is_initializer())
        layer = next((each for each in find_layers([node]) if is_at_risk), None)
        if layer is None or node.graph is None:
            return
        channels = self._channels(layer)
        array = np.zeros(channels) if bias is None else self._graph.array(bias).astype(np.float64)
        scale = np.float32(max(np.abs(array).max(initial=0) / LARGEST_BIAS, SMALLEST_SCALE))
        arrays = {"codes": np.rint(array / scale).astype(np.int32), "step": np.array(scale)}
        name = (bias.name if bias is not None else None) or f"{layer.weight.name}_bias"
        inputs = [self._editor.initializer(node.graph, f"{name}_{part}", each) for part, each in arrays.items()]
        node.resize_inputs(_BIAS + 1)
        node.replace_input_with(_BIAS, self._dequantized(node.graph, name, inputs, None, array.shape))
        drop_dead(bias)

    def _channels(self, layer: Layer) -> int:
        groups = int(attribute(layer.node, "group", 1)) if layer.op == "ConvTranspose" else 1
        return int(self._graph.array(layer.weight).shape[layer.output_axis]) * groups

    def _write_pair(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """Put a pair behind `value`; gives what reads it from now on."""
        owner = owner_of(value)
        taken = list(readers(value, self._placement))
        scale, zero = self._parameters_of(value, owner)
        name = value.name or ""
        down = self._editor.node("QuantizeLinear", [value, scale, zero], [f"{name}_quantized"])
        up = self._editor.node("DequantizeLinear", [down.outputs[0], scale, zero], [f"{name}_dequantized"])
        producer = value.producer()
        if producer is None:
            _begin(owner, up)
            _begin(owner, down)
        else:
            owner.insert_after(producer, [down, up])
        restored = _typed(up.outputs[0], value.shape)
        for node, index in taken:
            node.replace_input_with(index, restored)
        if value in self._placement.written_as_integers and value.is_graph_output():
            _take_over_output(self._editor, owner, value, restored)
        return taken

    def _parameters_of(self, value: ir.Value, owner: ir.Graph) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point as initializers, made once for all tensors that share them."""
        root, quantizer = self._placement.pairs[value], self._quantizers[value]
        if root not in self._parameters or self._parameters[root][0].graph is not owner:
            self._parameters[root] = (
                self._editor.initializer(owner, f"{root.name}_scale", np.array(quantizer.scale)),
                self._editor.initializer(owner, f"{root.name}_zero_point", quantizer.zero_point),
            )
        return self._parameters[root]


def _order(layer: Layer) -> tuple[int, ...]:
    traced = trace_weight(layer.node.inputs[_WEIGHT])
    if traced is None:
        raise ValueError(f"{layer.name} has no constant weight")
    return traced[1]


def _typed(value: ir.Value, shape: ir.Shape | None) -> ir.Value:
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), shape
    return value


def _begin(owner: ir.Graph, node: ir.Node) -> None:
    """Put `node` before all others."""
    owner.insert_before(owner[0], node)


def _take_over_output(editor: Editor, owner: ir.Graph, value: ir.Value, restored: ir.Value) -> None:
    """`restored` becomes the graph's output under the name of `value`."""
    name = value.name or ""
    value.name = editor.free_name(f"{name}_float")
    restored.name = name
    for index, output in enumerate(owner.outputs):
        if output is value:
            owner.outputs[index] = restored
