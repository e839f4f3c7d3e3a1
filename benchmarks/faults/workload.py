"""A network with random weights that is slow for its size, so that each step of a job on it takes a second or two."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SIDE, _CHANNELS, _LAYERS = 64, 96, 6


def make_slow_network(file: Path) -> Path:
    """Writes a chain of convolutions; gives `file`."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for layer in range(_LAYERS):
        incoming = _CHANNELS if layer else 3
        values = rng.standard_normal((_CHANNELS, incoming, 3, 3)) / np.sqrt(9 * incoming / 2)
        weights.append(numpy_helper.from_array(values.astype("f4"), f"conv{layer}.weight"))
        nodes.append(helper.make_node("Conv", [last, weights[-1].name], [f"c{layer}"], f"conv{layer}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [last := f"r{layer}"], f"relu{layer}"))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"], "pool"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, _SIDE, _SIDE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", _CHANNELS, 1, 1])]
    graph = helper.make_graph(nodes, "slow", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file
