"""Finds the nodes whose output channels can be scaled and shifted by their own constants, layers and norms."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph, Layer
from worker.engine.pruning.rescalable import NORM, Numbers, Rescalable, is_own, read, store
from worker.engine.pruning.rescalable_layers import find_rescalable_layer
from worker.engine.quantization.nodes import attribute

_MEAN, _VARIANCE, _PARAMETERS = 3, 4, 5
_EPSILON = 1e-5
_SMALLEST_SCALE = 1e-6
"""Of a BatchNormalization: below it no running statistics move its output."""


def find_rescalable(graph: Graph) -> list[Rescalable]:
    """In graph order, bodies too: BatchNormalization, and Conv, ConvTranspose, Gemm and MatMul that none follows.

    Left out is what shares its weights or computes them, and a MatMul to which no constant bias is added.
    """
    layers = {layer.node: layer for layer in graph.layers()}
    return [each for node in graph.nodes() for each in _find(node, layers.get(node))]


def _find(node: ir.Node, layer: Layer | None) -> Iterator[Rescalable]:
    if node.op_type == NORM and _has_own_statistics(node):
        yield _Norm(node)
    found = None if layer is None else find_rescalable_layer(layer)
    if found is not None:
        yield found


class _Norm(Rescalable):
    """A BatchNormalization, by its running statistics: scale and bias are trained, and right once these are."""

    def rescale(self, graph: Graph, gain: Numbers, shift: Numbers) -> None:
        """See `Rescalable.rescale`; channels whose scale is zero stay as they are."""
        scale, bias, mean, variance = (read(graph, value) for value in self.node.inputs[1:_PARAMETERS])
        epsilon = attribute(self.node, "epsilon", _EPSILON)
        deviation = np.sqrt(variance + epsilon) / gain
        is_live = np.abs(scale) > _SMALLEST_SCALE
        moved = mean + ((1 - gain) * bias - shift) * deviation / np.where(is_live, scale, 1)
        new_variance = np.maximum(deviation**2 - epsilon, 0)
        store(graph, self.node.inputs[_MEAN], np.where(is_live, moved, mean))
        store(graph, self.node.inputs[_VARIANCE], np.where(is_live, new_variance, variance))


def _has_own_statistics(node: ir.Node) -> bool:
    parameters = node.inputs[1:_PARAMETERS]
    are_constant = all(value is not None and value.const_value is not None for value in parameters)
    are_own = all(is_own(value) for value in node.inputs[_MEAN:_PARAMETERS])
    return are_constant and are_own and not attribute(node, "training_mode", 0)
