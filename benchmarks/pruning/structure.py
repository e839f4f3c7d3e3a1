"""How wide attention and the layers behind activations are in a file, from the shapes that ONNX Runtime sees."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from worker.engine.session import open_session, run_session

_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Where", "IsNaN", "Cast", "Identity", "Reshape"})
_ACTIVATIONS = frozenset({"Relu", "Gelu", "Erf", "Tanh", "Sigmoid"})
_PRODUCTS = frozenset({"MatMul", "Gemm"})


def attention_widths(model: Path, feed: Mapping[str, NDArray[Any]]) -> list[int]:
    """Of every attention heads x numbers per head, in graph order."""
    graph = onnx.load(model).graph
    products = [_products_after(graph, node) for node in graph.node if node.op_type == "Softmax"]
    shapes = _shapes(model, [name for each in products for name in each[:1]], feed)
    return [shape[1] * shape[3] for shape in shapes if len(shape) == 4]  # samples, heads, positions, numbers


def mlp_widths(model: Path, feed: Mapping[str, NDArray[Any]]) -> list[int]:
    """Of every activation on a sequence that a matrix product reads, in graph order: how many numbers it has."""
    graph = onnx.load(model).graph
    found = [node for node in graph.node if node.op_type in _ACTIVATIONS and _products_after(graph, node)]
    shapes = _shapes(model, [node.output[0] for node in found], feed)
    return [shape[-1] for shape in shapes if len(shape) == 3]  # samples, positions, numbers


def _products_after(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[str]:
    """Outputs of the matrix products that read what `node` gives, as it is or scaled, masked or reshaped."""
    reached, found = {node.output[0]}, []
    for each in graph.node:
        if reached.isdisjoint(each.input):
            continue
        if each.op_type in _ELEMENTWISE:
            reached.update(each.output)
        elif each.op_type in _PRODUCTS:
            found.append(each.output[0])
    return found


def _shapes(model: Path, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[tuple[int, ...]]:
    """Of inner values, seen by running the model with all of them as outputs too."""
    shown = onnx.load(model)
    outputs = len(shown.graph.output)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = run_session(open_session(shown.SerializeToString(), threads=1), feed)
    return [value.shape for value in values[outputs:]]
