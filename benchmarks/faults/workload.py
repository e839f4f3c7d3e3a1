"""Networks to break things with: made here, with random weights, as slow as they need to be."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def make_network(file: Path, width: int, side: int, layers: int = 2, classes: int = 5) -> Path:
    """Writes a classifier of RGB images, `side` pixels high and wide: `layers` convolutions of `width` channels."""
    rng = np.random.default_rng(0)
    shapes = {f"conv{layer}.w": (width, width if layer > 1 else 3, 3, 3) for layer in range(1, layers + 1)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) / 2)).astype("f4"), name)
        for name, shape in {**shapes, "head.w": (classes, width)}.items()
    ]
    nodes, last = [], "x"
    for layer in range(1, layers + 1):
        nodes.append(helper.make_node("Conv", [last, f"conv{layer}.w"], [f"c{layer}"], f"conv{layer}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [last := f"r{layer}"], f"relu{layer}"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head.w"], ["y"], "head", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, side, side])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes])]
    graph = helper.make_graph(nodes, file.stem, inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file
