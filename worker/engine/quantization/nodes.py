"""Reads nodes: a number among the attributes, and the weight that a quantized layer really multiplies by."""

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.tensors.affine import dequantize


def attribute(node: ir.Node, name: str, default: float) -> float:
    """A number among a node's attributes."""
    return float(node.attributes[name].value) if name in node.attributes else default


def weight_after(graph: Graph, layer: str) -> np.ndarray | None:
    """The weight of node `layer` as its DequantizeLinear gives it; None where it is still float."""
    node = graph.model.graph.node(layer)
    source = node.inputs[1].producer() if node.inputs[1] is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        return None
    integers, scale, zero = (graph.array(value) for value in source.inputs if value is not None)
    if scale.ndim:
        shape = [1] * integers.ndim
        shape[int(attribute(source, "axis", 1))] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return dequantize(integers, scale, zero)
