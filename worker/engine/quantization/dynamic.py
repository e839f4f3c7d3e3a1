"""Rewrites a layer into nodes that quantize its input at run time and multiply integers.

The patterns are those that ONNX Runtime fuses. Legend: D directions, G gates x hidden, H hidden, I inputs, K reduction,
N output channels.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph, Layer
from worker.engine.graph.edit import ORT_DOMAIN, Editor
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.nodes import attribute
from worker.engine.tensors.affine import IntegerRange, dequantize, quantize, symmetric_scale
from worker.engine.tensors.similarity import sqnr_db

_S8 = IntegerRange.of(8, signed=True, symmetric=True)
_BIAS = 2
_LSTM_WEIGHTS = (1, 2)
_LSTM_INPUTS = 8


class DynamicRewriter:
    """Replaces layers of `graph` in place. Every rewrite returns the SQNR of the layer's weights, dB."""

    def __init__(self, graph: Graph, *, per_channel: bool) -> None:
        self._graph, self._editor, self._per_channel = graph, Editor(graph), per_channel
        self._activations: dict[tuple[int, int], ir.Node] = {}

    def rewrite(self, layer: Layer) -> float | None:
        """Rewrite a MatMul, Gemm, Conv or LSTM with constant float32 weights."""
        match layer.op:
            case "LSTM":
                return self._lstm(layer)
            case "Conv":
                return self._conv(layer)
            case _:
                return self._matrix(layer)

    def _matrix(self, layer: Layer) -> float | None:
        node = layer.node
        weight = _effective_weight(self._graph, node)
        scale = symmetric_scale(weight, (1,) if self._per_channel else ())
        integers = quantize(weight, scale, 0, _S8)
        flat = scale.reshape(-1) if self._per_channel else scale.reshape(())
        bias = node.inputs[_BIAS] if layer.op == "Gemm" and len(node.inputs) > _BIAS else None
        self._multiply(layer, "MatMulInteger", integers, flat, bias)
        return sqnr_db(weight, dequantize(integers, scale, 0))

    def _conv(self, layer: Layer) -> float | None:
        node, weight = layer.node, self._graph.array(layer.weight)
        scale = symmetric_scale(weight, (0,) if self._per_channel else ())
        integers = quantize(weight, scale, 0, _S8)
        to_channels = (-1, *(1 for _ in weight.shape[2:]))
        bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
        if bias is not None:
            shaped = self._graph.array(bias).reshape(to_channels)
            bias = self._editor.initializer(_owner(node), f"{bias.name}_channels", shaped)
        self._multiply(layer, "ConvInteger", integers, scale.reshape(to_channels), bias)
        return sqnr_db(weight, dequantize(integers, scale, 0))

    def _multiply(self, layer: Layer, op: str, integers: np.ndarray, scale: np.ndarray, bias: ir.Value | None) -> None:
        """DynamicQuantizeLinear, the integer product, Cast, Mul by both scales and Add of the bias, for `layer`."""
        node, owner, editor = layer.node, _owner(layer.node), self._editor
        name, result = layer.weight.name or layer.name, node.outputs[0].name or layer.name
        weight = editor.initializer(owner, f"{name}_quantized", integers)
        zero = editor.initializer(owner, f"{name}_zero_point", np.zeros((), np.int8))
        weight_scale = editor.initializer(owner, f"{name}_scale", scale)
        made, (values, input_scale, input_zero) = self._quantized_input(node)
        attributes = list(node.attributes.values()) if op == "ConvInteger" else []
        product = editor.node(op, [values, weight, input_zero, zero], [f"{result}_integer"], attributes)
        cast = editor.node("Cast", product.outputs, [f"{result}_cast"], [ir.AttrInt64("to", ir.DataType.FLOAT.value)])
        scales = editor.node("Mul", [input_scale, weight_scale], [f"{result}_scales"])
        scaled = editor.node("Mul", [cast.outputs[0], scales.outputs[0]], [f"{result}_scaled"])
        chain = [*made, product, cast, scales, scaled]
        if bias is not None:
            chain.append(editor.node("Add", [scaled.outputs[0], bias], [f"{result}_biased"]))
        editor.replace(node, chain, chain[-1].outputs)

    def _quantized_input(self, node: ir.Node) -> tuple[list[ir.Node], Sequence[ir.Value]]:
        """The quantized first input of `node`, made once for all layers of a graph that read it."""
        source = node.inputs[0]
        if source is None:
            raise ValueError(f"{node.name} has no input")
        key = (id(_owner(node)), id(source))
        if key in self._activations:
            return [], self._activations[key].outputs
        names = [f"{source.name}_{part}" for part in ("quantized", "scale", "zero_point")]
        self._activations[key] = made = self._editor.node("DynamicQuantizeLinear", [source], names)
        return [made], made.outputs

    def _lstm(self, layer: Layer) -> float | None:
        """The contrib operator DynamicQuantizeLSTM: weights [D, I, G] and [D, H, G], one scale for each gate row."""
        node, owner, editor = layer.node, _owner(layer.node), self._editor
        inputs = [*node.inputs, *([None] * (_LSTM_INPUTS - len(node.inputs)))]
        pairs = []
        for slot, weight in zip(_LSTM_WEIGHTS, layer.weights, strict=True):
            array = self._graph.array(weight)
            scale = symmetric_scale(array, (0, 1) if self._per_channel else (0,))
            integers = quantize(array, scale, 0, _S8)
            flat = scale.reshape(len(array), -1) if self._per_channel else scale.reshape(-1)
            inputs[slot] = editor.initializer(owner, f"{weight.name}_quantized", integers.transpose(0, 2, 1))
            inputs.append(editor.initializer(owner, f"{weight.name}_scale", flat))
            inputs.append(editor.initializer(owner, f"{weight.name}_zero_point", np.zeros(flat.shape, np.int8)))
            pairs.append((array.ravel(), dequantize(integers, scale, 0).ravel()))
        attributes = [each for name, each in node.attributes.items() if name != "layout"]
        names = [output.name or f"{layer.name}_unused" for output in node.outputs]
        new = editor.node("DynamicQuantizeLSTM", inputs, names, attributes, ORT_DOMAIN)
        editor.replace(node, [new], new.outputs)
        original, restored = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return sqnr_db(original, restored)


def _effective_weight(graph: Graph, node: ir.Node) -> np.ndarray:
    """The matrix [K, N] that a MatMul or Gemm multiplies by: through Transpose, transB and alpha."""
    traced = trace_weight(node.inputs[1])
    if traced is None:
        raise ValueError(f"{node.name} has no constant weight")
    weight = graph.array(traced[0]).transpose(traced[1])
    if node.op_type == "Gemm":
        weight = weight.T if attribute(node, "transB", 0) else weight
        weight = weight * np.float32(attribute(node, "alpha", 1.0))
    return weight


def _owner(node: ir.Node) -> ir.Graph:
    if node.graph is None:
        raise ValueError(f"{node.name} is in no graph")
    return node.graph
