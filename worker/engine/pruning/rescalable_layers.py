"""Layers that can be scaled and shifted by their weight and their bias. By how much is decided elsewhere."""

from dataclasses import dataclass

import onnx_ir as ir

from worker.engine.graph import Graph, Layer
from worker.engine.graph.edit import Editor, owner_of
from worker.engine.pruning.rescalable import AXES, NORM, Numbers, Rescalable, is_own, read, store
from worker.engine.quantization.nodes import attribute

_WEIGHT, _BIAS = 1, 2
_MATRIX = 2
_CARRIERS = frozenset({"Identity", "Transpose"})


@dataclass(frozen=True)
class _Bias:
    """Input `index` of `node`, or nothing yet: it is added to a layer's outputs `factor` times.

    `is_after`: the sum is another node's, and so the bias is not scaled with the layer.
    """

    node: ir.Node
    index: int
    factor: float = 1.0
    is_after: bool = False

    @property
    def value(self) -> ir.Value | None:
        """What is there now."""
        return self.node.inputs[self.index] if self.index < len(self.node.inputs) else None


@dataclass(frozen=True)
class RescalableLayer(Rescalable):
    """By its weight and its bias; a layer without a bias gets one."""

    layer: Layer
    bias: _Bias

    def rescale(self, graph: Graph, gain: Numbers, shift: Numbers) -> None:
        """See `Rescalable.rescale`."""
        weight, old = self.layer.weight, self.bias.value
        store(graph, weight, _scaled(read(graph, weight), self.layer.output_axis, gain))
        kept = 0.0 if old is None else read(graph, old) * (1.0 if self.bias.is_after else gain)
        numbers = kept + shift / self.bias.factor
        if old is not None and is_own(old):
            store(graph, old, numbers)
            return
        array = numbers.astype(graph.array(weight).dtype)
        new = Editor(graph).initializer(owner_of(self.node), f"{weight.name}_restored_bias", array)
        self.bias.node.resize_inputs(max(len(self.bias.node.inputs), self.bias.index + 1))
        self.bias.node.replace_input_with(self.bias.index, new)


def find_rescalable_layer(layer: Layer) -> RescalableLayer | None:
    """None for a layer that shares or computes its weight, that a BatchNormalization follows, or another operator.

    A MatMul needs a matrix on its right, and a constant bias that an Add puts on.
    """
    is_normalized = any(reader.op_type == NORM for reader, _ in layer.node.outputs[0].uses())
    if layer.op not in AXES or is_normalized or not _has_own_weight(layer):
        return None
    bias = _find_bias(layer)
    return None if bias is None else RescalableLayer(layer.node, layer, bias)


def _scaled(weight: Numbers, axis: int, gain: Numbers) -> Numbers:
    """`axis` counts output channels; of a grouped ConvTranspose those of one group, and groups lie along axis 0."""
    groups = len(gain) // weight.shape[axis]
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    factors = gain.reshape(groups, *(-1 if each == axis else 1 for each in range(weight.ndim)))
    scaled: Numbers = (by_group * factors).reshape(weight.shape)
    return scaled


def _has_own_weight(layer: Layer) -> bool:
    """Whether floats that no other node reads reach the weight's input as they are, or transposed."""
    value, is_turned = layer.node.inputs[_WEIGHT], False
    while value is not None and value is not layer.weight:
        maker = value.producer()
        if maker is None or maker.op_type not in _CARRIERS or len(value.uses()) > 1:
            return False
        value, is_turned = maker.inputs[0], True
    if layer.op == "ConvTranspose" and is_turned and attribute(layer.node, "group", 1) > 1:
        return False
    rank = layer.weight.shape.rank() if layer.weight.shape is not None else 0
    return is_own(value) and (rank == _MATRIX or layer.op != "MatMul")


def _find_bias(layer: Layer) -> _Bias | None:
    bias = _added_after(layer.node.outputs[0]) if layer.op == "MatMul" else _added_inside(layer)
    if bias is None or not bias.factor or (bias.is_after and bias.value is None):
        return None
    return bias if bias.value is None or _is_for_channels(bias.value, layer) else None


def _added_inside(layer: Layer) -> _Bias:
    return _Bias(layer.node, _BIAS, attribute(layer.node, "beta", 1.0) if layer.op == "Gemm" else 1.0)


def _added_after(product: ir.Value) -> _Bias | None:
    readers = list(product.uses())
    if len(readers) != 1 or product.is_graph_output() or readers[0][0].op_type != "Add":
        return None
    node, index = readers[0]
    return _Bias(node, 1 - index, is_after=True)


def _is_for_channels(value: ir.Value, layer: Layer) -> bool:
    """Whether it is constant, with one number, or one for each channel on the last axis."""
    if value.const_value is None or value.is_graph_input() or layer.weight.shape is None:
        return False
    *others, last = [1, *value.const_value.shape.numpy()]
    if layer.op.startswith("Conv"):
        return True
    return all(size == 1 for size in others) and last in (1, layer.weight.shape[layer.output_axis])
