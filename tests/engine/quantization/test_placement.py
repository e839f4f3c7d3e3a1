"""Which nodes become integer and where pairs go: judged by the kernels ONNX Runtime really fuses."""

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.recipe.quantize_static import ActivationQuantization, WeightQuantization
from worker.engine.graph import Graph
from worker.engine.measure.comparison import Judge
from worker.engine.measure.kernels import KernelCount, count_kernels
from worker.engine.quantization.calibration import Pass, float_tensors
from worker.engine.quantization.pairs import Quantized, Scheme, quantize_graph
from worker.engine.quantization.placement import Way, decide
from worker.engine.quantization.ranges import extreme_ranges
from worker.engine.quantization.target import find_target
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session

ALONE, BETWEEN = Way("alone"), Way("between", between=True)
PRODUCTS = Way("products", between=True, products=True)
on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="counts kernels for unsigned activations, as on x86"
)


def build(nodes: Sequence[onnx.NodeProto], output: str = "y", **weights: Sequence[int]) -> Graph:
    """A graph from x [1, 4, 8, 8] to `output`; weights are random, of the given shapes."""
    generator = np.random.default_rng(0)
    arrays = {name: (generator.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in weights.items()}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "placed",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    graph = Graph.from_proto(model)
    graph.infer_shapes()
    return graph


def conv(source: str, weight: str, name: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [name], name, pads=[1, 1, 1, 1])


def samples_of(graph: Graph) -> Samples:
    return make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)


def quantize(graph: Graph, way: Way) -> Quantized:
    """All layers quantized, with ranges from made-up inputs."""
    layers = [layer.node.name or "" for layer in graph.layers()]
    ranges = extreme_ranges(graph, float_tensors(graph), Pass(samples_of(graph), 100))
    scheme = Scheme(find_target("device"), WeightQuantization(), ActivationQuantization())
    return quantize_graph(graph, layers, way, ranges, scheme)


def kernels(graph: Graph, folder: Path) -> KernelCount:
    graph.check()
    graph.save(folder / "counted.onnx")
    return count_kernels(folder / "counted.onnx")


def close(before: Graph, after: Graph) -> bool:
    """Whether the outputs are those of the float graph but for rounding to 8 bits."""
    return Judge(before, samples_of(before), 100).compare(open_session(after.proto().SerializeToString())) > 25


RESIDUAL = (
    conv("x", "a", "c1"),
    helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
    conv("r1", "b", "c2"),
    helper.make_node("Add", ["r1", "c2"], ["s"], "add"),
    helper.make_node("Relu", ["s"], ["r2"], "relu2"),
    conv("r2", "d", "y"),
)


@on_x86
def test_a_residual_block_never_leaves_the_integers(tmp_path: Path) -> None:
    graph = build(RESIDUAL, a=(4, 4, 3, 3), b=(4, 4, 3, 3), d=(4, 4, 3, 3))
    wide = quantize(graph, BETWEEN).graph
    assert close(graph, wide)
    counted = kernels(wide, tmp_path)
    assert (counted.operators["QLinearConv"], counted.operators["QLinearAdd"], counted.borders) == (3, 1, 2)
    assert counted.float == 0


@on_x86
@pytest.mark.parametrize(
    "between",
    [
        helper.make_node("MaxPool", ["c1"], ["m"], "m", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["c1"], ["m"], "m", kernel_shape=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c1"], ["m"], "m"),
        helper.make_node("LeakyRelu", ["c1"], ["m"], "m", alpha=0.1),
        helper.make_node("Sigmoid", ["c1"], ["m"], "m"),
        helper.make_node("Transpose", ["c1"], ["m"], "m", perm=[0, 1, 3, 2]),
        helper.make_node("Concat", ["c1", "c1"], ["m"], "m", axis=2),
        helper.make_node("Mul", ["c1", "c1"], ["m"], "m"),
    ],
    ids=lambda node: node.op_type,
)
def test_what_lies_between_has_no_conversions(between: onnx.NodeProto, tmp_path: Path) -> None:
    graph = build([conv("x", "a", "c1"), between, conv("m", "b", "y")], a=(4, 4, 3, 3), b=(4, 4, 3, 3))
    wide = quantize(graph, BETWEEN).graph
    assert close(graph, wide)
    counted = kernels(wide, tmp_path)
    assert (counted.integer, counted.float, counted.borders) == (2, 0, 2)


def test_what_integers_do_not_come_from_stays_float() -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"], "before"),
        conv("s", "a", "c1"),
        helper.make_node("Sigmoid", ["c1"], ["y"], "after"),
    ]
    graph = build(nodes, a=(4, 4, 3, 3))
    layers = {layer.node for layer in graph.layers()}
    placed = decide(graph, layers, BETWEEN, find_target("device"), lambda _: True)
    assert [node.name for node in placed.nodes] == ["c1"]


def test_a_tensor_without_a_range_leaves_its_layer_in_float() -> None:
    graph = build(RESIDUAL, a=(4, 4, 3, 3), b=(4, 4, 3, 3), d=(4, 4, 3, 3))
    layers = {layer.node for layer in graph.layers()}
    placed = decide(graph, layers, ALONE, find_target("device"), lambda value: value.name != "c2")
    assert sorted(node.name or "" for node in placed.nodes) == ["c1", "y"]


def test_products_of_activations_only_where_asked() -> None:
    nodes = [
        conv("x", "a", "q"),
        conv("x", "b", "k"),
        helper.make_node("MatMul", ["q", "k"], ["p"], "product"),
        conv("p", "d", "y"),
    ]
    graph = build(nodes, a=(4, 4, 3, 3), b=(4, 4, 3, 3), d=(4, 4, 3, 3))
    layers, target = {layer.node for layer in graph.layers()}, find_target("device")
    placed = {way.name: decide(graph, layers, way, target, lambda _: True).nodes for way in (BETWEEN, PRODUCTS)}
    assert [node.name for node in placed["products"] - placed["between"]] == ["product"]
    assert close(graph, quantize(graph, PRODUCTS).graph)


@on_x86
def test_an_output_that_a_convolution_gives_keeps_its_name(tmp_path: Path) -> None:
    graph = build([conv("x", "a", "y")], a=(4, 4, 3, 3))
    quantized = quantize(graph, ALONE).graph
    assert [spec.name for spec in quantized.outputs] == ["y"]
    assert close(graph, quantized)
    assert kernels(quantized, tmp_path).float == 0


def test_a_weight_that_two_layers_read_is_stored_once() -> None:
    graph = build([conv("x", "a", "c1"), conv("c1", "a", "y")], a=(4, 4, 3, 3))
    quantized = quantize(graph, ALONE)
    stored = [
        value.name for value in quantized.graph.initializers() if value.name == "a" or "a_quantized" in str(value.name)
    ]
    assert stored == ["a_quantized"]
    assert close(graph, quantized.graph)


def test_a_weight_behind_a_transpose_is_stored_as_the_layer_reads_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["a"], ["t"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"], "product"),
    ]
    graph = build(nodes, a=(6, 8))
    quantized = quantize(graph, ALONE)
    assert "Transpose" not in {node.op_type for node in quantized.graph.nodes()}
    assert quantized.restored("product") == pytest.approx(graph.array("a"), abs=0.01)
    assert close(graph, quantized.graph)
    assert kernels(quantized.graph, tmp_path).multiplies_integers("product")


@on_x86
def test_a_layer_left_out_behind_integers_stays_float_at_run_time(tmp_path: Path) -> None:
    """ONNX Runtime would quantize it all the same, with one scale for the whole weight."""
    graph = build(RESIDUAL, a=(4, 4, 3, 3), b=(4, 4, 3, 3), d=(4, 4, 3, 3))
    weight = graph.array("b").copy()
    weight[0] *= 1000
    graph.set_array("b", weight)
    ranges = extreme_ranges(graph, float_tensors(graph), Pass(samples_of(graph), 100))
    scheme = Scheme(find_target("device"), WeightQuantization(), ActivationQuantization())
    quantized = quantize_graph(graph, ["c1", "y"], ALONE, ranges, scheme)
    counted = kernels(quantized.graph, tmp_path)
    assert (counted.multiplies_integers("c1"), counted.multiplies_integers("c2")) == (True, False)
    file = quantized.graph.proto().SerializeToString()
    decibels = [
        Judge(graph, samples_of(graph), 100).compare(open_session(file, optimize=optimize))
        for optimize in (True, False)
    ]
    assert decibels[0] == pytest.approx(decibels[1], abs=1)
