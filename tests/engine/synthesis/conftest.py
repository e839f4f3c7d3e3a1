"""Tiny models whose BatchNormalization stores what inputs unlike standard normal noise gave."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.quantization.calibration import Pass, watch
from worker.engine.samples import Samples
from worker.engine.session import Array

Builder = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors on many threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parse(text: str, **arrays: Array) -> Graph:
    """A graph in ONNX's text form, `name (inputs) => (outputs) { nodes }`, with initializers beside it."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.checker.check_model(model)
    graph = Graph.from_proto(model)
    graph.infer_shapes()
    return graph


@pytest.fixture(scope="session")
def parse_graph() -> Callable[..., Graph]:
    return parse


def floats(name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def stored(**arrays: Array) -> list[TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def to_model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _convolve(x: torch.Tensor, weight: Array) -> torch.Tensor:
    """A convolution of any number of dimensions without bias, all axes padded by 1."""
    kernels = {3: torch.nn.functional.conv1d, 4: torch.nn.functional.conv2d}
    if x.dim() not in kernels:
        return x @ torch.from_numpy(weight).T
    return kernels[x.dim()](x, torch.from_numpy(weight), padding=1)


def normed(*, rank: int = 4, batch: int | str = "batch", dtype: type = np.float32) -> onnx.ModelProto:
    """x [batch, 3, 8, 8], [batch, 3, 8] or [batch, 3] -> (Conv or Gemm, BatchNormalization, Relu) twice -> y.

    The statistics are those of 256 inputs of mean 2, -1, 0.5 and deviation 3 in their channels.
    """
    rng = np.random.default_rng(3)
    shape = (3, *[8] * (rank - 2))
    real = torch.from_numpy(rng.standard_normal((256, *shape)).astype(np.float32) * 3)
    real += torch.tensor([2.0, -1.0, 0.5]).reshape(1, 3, *[1] * (rank - 2))
    kernel = [3] * (rank - 2)
    op, options = ("Conv", {"pads": [1] * (2 * rank - 4)}) if kernel else ("Gemm", {"transB": 1})
    nodes, weights, source, flowing = [], [], "x", real
    for number, inputs in ((1, 3), (2, 6)):
        weight = (rng.standard_normal((6, inputs, *kernel)) * 0.3).astype(np.float32)
        flowing = _convolve(flowing, weight)
        axes = [axis for axis in range(rank) if axis != 1]
        variance, mean = (each.numpy() for each in torch.var_mean(flowing, axes, correction=0))
        gain, shift = (rng.uniform(0.5, 1.5, 6).astype(np.float32), (rng.standard_normal(6) * 0.3).astype(np.float32))
        names = [f"norm{number}.{part}" for part in ("gain", "shift", "mean", "variance")]
        arrays = {f"w{number}": weight, **dict(zip(names, (gain, shift, mean, variance), strict=True))}
        weights += stored(**{name: array.astype(dtype) for name, array in arrays.items()})
        nodes += [
            helper.make_node(op, [source, f"w{number}"], [f"c{number}"], f"layer{number}", **options),
            helper.make_node("BatchNormalization", [f"c{number}", *names], [f"n{number}"], f"norm{number}"),
            helper.make_node("Relu", [f"n{number}"], [f"r{number}"], f"relu{number}"),
        ]
        to_channels = [1, 6, *[1] * (rank - 2)]
        scale = torch.from_numpy(gain / np.sqrt(variance + 1e-5)).reshape(to_channels)
        centred = flowing - torch.from_numpy(mean).reshape(to_channels)
        flowing = (centred * scale + torch.from_numpy(shift).reshape(to_channels)).relu()
        source = f"r{number}"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    output = floats("r2", [batch, 6, *shape[1:]], kind)
    return to_model(nodes, [floats("x", [batch, *shape], kind)], [output], weights)


@pytest.fixture(scope="session")
def make_normed() -> Builder:
    return normed


@dataclass(frozen=True)
class Seen:
    """Mean and variance of each channel of a tensor, over samples."""

    mean: Array
    variance: Array


Observe = Callable[[Graph, Samples, str], Seen]


@pytest.fixture(scope="session")
def observe() -> Observe:
    """Runs a graph on all samples and looks at one tensor, whose channels are on axis 1."""

    def run(graph: Graph, samples: Samples, name: str) -> Seen:
        parts: list[Array] = []

        def take(values: torch.Tensor) -> None:
            parts.append(values.transpose(0, 1).flatten(1).float().numpy().copy())

        watch(graph, [(name, take)], Pass(samples, 10_000))
        joined = np.concatenate(parts, axis=1).astype(np.float64)
        return Seen(joined.mean(1), joined.var(1))

    return run
