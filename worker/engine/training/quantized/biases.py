"""Biases stored as int32: made floats, and integers again with the scale that integer kernels expect."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor, drop_dead, owner_of
from worker.engine.quantization.integer_weights import LARGEST_BIAS
from worker.engine.session import Array
from worker.engine.torch_graph.dtypes import TRAINABLE
from worker.engine.training.quantized.codes import align_array, restored
from worker.engine.training.quantized.tensors import CodedBias, Placing, is_constant

_BIAS = 2
_NEAR = 1e-5
"""By which the scale of a bias may differ from the product it is meant to be: float32 rounds each differently."""


def separate_biases(graph: Graph) -> None:
    """Give biases that share codes or a scale, without being the same, tensors of their own: their scales will part."""
    editor, seen = Editor(graph), dict[ir.Value, tuple[ir.Value | None, ...]]()
    for node in _dequantizers(graph):
        codes, scale = node.inputs[0], node.inputs[1]
        if codes is None or scale is None:
            continue
        if seen.setdefault(codes, tuple(node.inputs[1:])) != tuple(node.inputs[1:]):
            _copy_input(editor, graph, node, 0)
        if any(use.node.inputs[0] is not codes for use in scale.uses()):
            _copy_input(editor, graph, node, 1)


def unfold_biases(graph: Graph) -> list[CodedBias]:
    """Put floats in the place of every int32 constant and its DequantizeLinear."""
    found: dict[str, CodedBias] = {}
    for node in _dequantizers(graph):
        codes, scale = node.inputs[0], node.inputs[1]
        if codes is None or scale is None:
            continue
        name = codes.name or ""
        if name not in found:
            found[name] = CodedBias(name, scale.name or "", Placing.of(node), _find_factors(graph, node))
    arrays = {_name(node.inputs[0]): restored(node) for node in _dequantizers(graph)}
    for node in list(_dequantizers(graph)):
        _take_place(node)
    for name, array in arrays.items():
        graph.set_array(name, array)
    return list(found.values())


def fold_bias(bias: CodedBias, floats: Array, scale: Array, product: Array | None) -> tuple[Array, Array]:
    """int32 codes and scale, as the source has them shaped; `scale` is the one it had.

    Without a `product` of scales the old scale stays, unless the bias has outgrown it.
    """
    if product is not None:
        new = np.broadcast_to(product.reshape(-1), (scale.size,)).reshape(scale.shape)
    else:
        largest = np.abs(floats.astype(np.float64)).max(initial=0) / LARGEST_BIAS
        new = np.maximum(scale, largest.astype(scale.dtype))
    limits = np.iinfo(np.int32)
    ratio = floats.astype(np.float64) / align_array(new, floats.shape, bias.placing).astype(np.float64)
    return np.clip(np.rint(ratio), limits.min, limits.max).astype(np.int32), new.astype(scale.dtype)


def product_of(input_scale: Array, weight_scale: Array) -> Array:
    """The scale of what a layer sums up, as float32 multiplies it."""
    product: Array = input_scale.astype(np.float32) * weight_scale.astype(np.float32)
    return product


def _dequantizers(graph: Graph) -> Iterator[ir.Node]:
    """DequantizeLinear nodes of int32 constants with constant scales."""
    for node in graph.nodes():
        if node.op_type == "DequantizeLinear" and not node.outputs[0].is_graph_output():
            codes, scale = node.inputs[0], node.inputs[1]
            if is_constant(codes, {ir.DataType.INT32}) and is_constant(scale, TRAINABLE):
                yield node


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _take_place(node: ir.Node) -> None:
    """The tensor that `node` reads is read in the place of its output."""
    codes, others = node.inputs[0], list(node.inputs[1:])
    if codes is None:
        return
    node.outputs[0].replace_all_uses_with(codes)
    owner_of(node).remove(node, safe=True)
    for value in others:
        drop_dead(value)


def _copy_input(editor: Editor, graph: Graph, node: ir.Node, index: int) -> None:
    value = node.inputs[index]
    if value is not None:
        node.replace_input_with(index, editor.initializer(owner_of(value), value.name or "", graph.array(value)))


def _find_factors(graph: Graph, node: ir.Node) -> tuple[str, str] | None:
    """Names of the two scales whose product is the scale of the bias that `node` gives; None where it is another."""
    scale = graph.array(node.inputs[1]) if node.inputs[1] is not None else np.empty(0)
    factors = {_factors(use.node) if use.idx == _BIAS else None for use in node.outputs[0].uses()}
    found = factors.pop() if len(factors) == 1 else None
    if found is None:
        return None
    product = product_of(*(graph.array(value) for value in found))
    if product.size not in (1, scale.size) or not np.allclose(product.reshape(-1), scale.reshape(-1), _NEAR, 0):
        return None
    return _name(found[0]), _name(found[1])


def _factors(layer: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The scales behind the input and the weight of `layer`."""
    scales = []
    for value in layer.inputs[:_BIAS]:
        producer = value.producer() if value is not None else None
        scale = producer.inputs[1] if producer is not None and producer.op_type == "DequantizeLinear" else None
        if scale is None or not scale.is_initializer():
            return None
        scales.append(scale)
    return (scales[0], scales[1]) if len(scales) == _BIAS else None
