"""Why layers cannot be quantized: what holds for every method, and for ranges fixed ahead. No graph is changed here."""

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.nodes import attribute
from worker.engine.quantization.target import Target

_MATRIX, _BIAS = 2, 2


def obstacle_in_types(layer: Layer) -> str | None:
    """Why the weights of `layer` may not be replaced by integers: what they are, or that the model gives them out."""
    for weight in layer.weights:
        if weight.dtype != ir.DataType.FLOAT:
            kind = weight.dtype.name.lower() if weight.dtype else "of unknown type"
            return f"its weights are {kind}: quantize the float32 model instead"
        if weight.is_graph_output():
            return "its weights are an output of the model"
    return None


def obstacle_in_numbers(graph: Graph, layer: Layer) -> str | None:
    """Why the numbers of the weights of `layer` have no integers that stand for them."""
    are_finite = all(np.isfinite(graph.array(weight)).all() for weight in layer.weights)
    return None if are_finite else "its weights hold NaN or infinity"


def find_obstacle(graph: Graph, layer: Layer, target: Target) -> str | None:
    """Why static quantization for `target` leaves `layer` of `graph` alone; None if it works on it."""
    if layer.op in ("LSTM", "GRU", "RNN"):
        return f"static quantization does nothing for {layer.op}; quantize.dynamic does it"
    if layer.op not in target.layers:
        return f"{layer.op} has no static integer kernel on {target.name}; quantize.weights makes it smaller"
    reason = obstacle_in_types(layer) or _obstacle_in_readers(layer) or _obstacle_in_place(layer)
    return reason or obstacle_in_numbers(graph, layer) or _obstacle_in_bias(graph, layer)


def _obstacle_in_readers(layer: Layer) -> str | None:
    others = {use.node.op_type for weight in layer.weights for use in weight.uses()}
    others -= {layer.op, "Transpose", "Identity"}
    return f"its weights are read by {', '.join(sorted(others))} too" if others else None


def _obstacle_in_place(layer: Layer) -> str | None:
    traced = trace_weight(layer.node.inputs[1])
    if traced is None or traced[0] is not layer.weight:
        return "its weight is the left operand"
    if layer.op == "MatMul" and len(traced[1]) != _MATRIX:
        return "its weight is a stack of matrices"
    if layer.op == "Gemm" and (attribute(layer.node, "transA", 0) or attribute(layer.node, "alpha", 1) != 1):
        return "its input is transposed or scaled (transA, alpha)"
    return None


def _obstacle_in_bias(graph: Graph, layer: Layer) -> str | None:
    bias = layer.node.inputs[_BIAS] if layer.op != "MatMul" and len(layer.node.inputs) > _BIAS else None
    if bias is None:
        return None
    if not bias.is_initializer() or bias.is_graph_input():
        return "its bias is computed"
    array = graph.array(bias)
    if attribute(layer.node, "beta", 1) != 1:
        return "its bias is scaled (beta)"
    channels = graph.array(layer.weight).shape[layer.output_axis]
    if array.size not in (1, channels) or (array.size == channels and array.shape and array.shape[-1] != channels):
        return "its bias differs from row to row"
    return None if np.isfinite(array).all() else "its bias holds NaN or infinity"
