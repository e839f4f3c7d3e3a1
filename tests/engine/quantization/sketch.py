"""Draws small image models step by step, for tests of what may be folded into their weights. No test lives here."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.session import open_session, run_session

SIDE = 6


class Sketch:
    """A model in the making: images [2, C, 6, 6] under the names in `tensors`, with their numbers of channels."""

    def __init__(self, seed: int, channels: int = 4) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.tensors = {"x": channels}

    def node(self, op: str, inputs: Sequence[str], channels: int, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n{len(self.nodes)}", **attributes))
        self.tensors[name] = channels
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = (self.generator.standard_normal(shape) * 0.5).astype(np.float32)
        return name

    def constant(self, *numbers: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(numbers, np.int64)
        return name

    def conv(self, source: str, outputs: int, group: int = 1, kernel: int = 3) -> str:
        weight, bias = self.weight(outputs, self.tensors[source] // group, kernel, kernel), self.weight(outputs)
        return self.node("Conv", [source, weight, bias], outputs, group=group, pads=[kernel // 2] * 4)

    def finish(self, output: str, classes: int = 3) -> Graph:
        """Everything unread is summed up into the output."""
        mean = self.node("GlobalAveragePool", [output], self.tensors[output])
        flat = self.node("Flatten", [mean], self.tensors[output])
        last = self.node(
            "Gemm", [flat, self.weight(classes, self.tensors[output]), self.weight(classes)], classes, transB=1
        )
        return self.graph(last)

    def graph(self, output: str) -> Graph:
        made = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", self.tensors["x"], SIDE, SIDE])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return Graph.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def relu(sketch: Sketch, source: str) -> str:
    return sketch.node("Relu", [source], sketch.tensors[source])


def residual(sketch: Sketch, source: str) -> str:
    branch = sketch.conv(relu(sketch, sketch.conv(source, 5)), sketch.tensors[source])
    return sketch.node("Add", [branch, source], sketch.tensors[source])


def concatenation(sketch: Sketch, source: str) -> str:
    other = sketch.conv(source, 3, kernel=1)
    return sketch.node("Concat", [source, other, source], 2 * sketch.tensors[source] + 3, axis=1)


def halves(sketch: Sketch, source: str) -> str:
    """Shuffles channels: Slice takes every second one, and the others come after them."""
    count = sketch.tensors[source]
    parts = [
        sketch.node(
            "Slice",
            [source, sketch.constant(start), sketch.constant(count), sketch.constant(1), sketch.constant(2)],
            len(range(start, count, 2)),
        )
        for start in (0, 1)
    ]
    return sketch.node("Concat", parts, count, axis=1)


def shuffle(sketch: Sketch, source: str) -> str:
    """A channel shuffle by Reshape and Transpose; an odd number of channels stays."""
    count = sketch.tensors[source]
    if count % 2:
        return source
    split = sketch.node("Reshape", [source, sketch.constant(0, 2, count // 2, SIDE, SIDE)], count)
    turned = sketch.node("Transpose", [split], count, perm=[0, 2, 1, 3, 4])
    return sketch.node("Reshape", [turned, sketch.constant(0, -1, SIDE, SIDE)], count)


def split(sketch: Sketch, source: str) -> str:
    """Splits the channels in two and joins them the other way round."""
    count = sketch.tensors[source]
    names = [f"{source}_first", f"{source}_second"]
    sizes = sketch.constant(1, count - 1)
    sketch.nodes.append(helper.make_node("Split", [source, sizes], names, axis=1, name=f"n{len(sketch.nodes)}"))
    return sketch.node("Concat", names[::-1], count, axis=1)


def widened(sketch: Sketch, source: str) -> str:
    """Enlarged and made small again, by way of a fifth axis."""
    count = sketch.tensors[source]
    sketch.weights["twice"] = np.array([1, 1, 2, 2], np.float32)
    large = sketch.node("Resize", [source, "", "twice"], count, mode="linear")
    deep = sketch.node("Unsqueeze", [large, sketch.constant(2)], count)
    flat = sketch.node("Squeeze", [deep, sketch.constant(2)], count)
    return sketch.node("MaxPool", [flat], count, kernel_shape=[2, 2], strides=[2, 2])


def gate(sketch: Sketch, source: str) -> str:
    """Squeeze and excitation."""
    count = sketch.tensors[source]
    mean = sketch.node("ReduceMean", [source, sketch.constant(2, 3)], count)
    factors = sketch.node("Sigmoid", [sketch.conv(mean, count, kernel=1)], count)
    return sketch.node("Mul", [factors, source], count)


def more_channels(sketch: Sketch, source: str) -> str:
    """Zeros put before and after the channels."""
    count = sketch.tensors[source]
    return sketch.node("Pad", [source, sketch.constant(0, 1, 0, 0, 0, 2, 0, 0)], count + 3)


def norm(sketch: Sketch, source: str) -> str:
    count = sketch.tensors[source]
    parameters = [sketch.weight(count) for _ in range(4)]
    sketch.weights[parameters[3]] = np.abs(sketch.weights[parameters[3]]) + np.float32(0.5)
    return sketch.node("BatchNormalization", [source, *parameters], count)


STEPS: dict[str, Callable[[Sketch, str], str]] = {
    "relu": relu,
    "leaky": lambda s, x: s.node("LeakyRelu", [x], s.tensors[x], alpha=0.1),
    "prelu": lambda s, x: s.node("PRelu", [x, s.weight(s.tensors[x], 1, 1)], s.tensors[x]),
    "max": lambda s, x: s.node("MaxPool", [x], s.tensors[x], kernel_shape=[3, 3], pads=[1] * 4),
    "mean": lambda s, x: s.node("AveragePool", [x], s.tensors[x], kernel_shape=[3, 3], pads=[1] * 4),
    "sigmoid": lambda s, x: s.node("Sigmoid", [x], s.tensors[x]),
    "conv": lambda s, x: s.conv(x, 6),
    "pointwise": lambda s, x: s.conv(x, 4, kernel=1),
    "depthwise": lambda s, x: s.conv(x, s.tensors[x], group=s.tensors[x]),
    "multiplier": lambda s, x: s.conv(x, 2 * s.tensors[x], group=s.tensors[x]),
    "grouped": lambda s, x: s.conv(s.conv(x, 4), 6, group=2),
    "transposed": lambda s, x: s.node(
        "ConvTranspose", [x, s.weight(s.tensors[x], 5, 3, 3), s.weight(5)], 5, pads=[1] * 4
    ),
    "bias": lambda s, x: s.node("Add", [x, s.weight(s.tensors[x], 1, 1)], s.tensors[x]),
    "gain": lambda s, x: s.node("Mul", [x, s.weight(s.tensors[x], 1, 1)], s.tensors[x]),
    "residual": residual,
    "concat": concatenation,
    "halves": halves,
    "shuffle": shuffle,
    "split": split,
    "resize": widened,
    "gate": gate,
    "pad": more_channels,
    "norm": norm,
}


def run(graph: Graph) -> list[np.ndarray]:
    """Outputs on seeded inputs, free dimensions taken as 2."""
    generator = np.random.default_rng(1)
    feed = {
        spec.name: generator.standard_normal([dim if isinstance(dim, int) else 2 for dim in spec.shape]).astype("f4")
        for spec in graph.inputs
    }
    return run_session(open_session(graph.proto().SerializeToString(), optimize=False), feed)
