"""What layers take: bytes against those of the whole graph, times by the names that ONNX Runtime gives to kernels."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from app.contracts.recipe.quantize_mixed import WeightBits
from app.contracts.recipe.quantize_static import ActivationQuantization, WeightQuantization
from worker.engine.graph import Graph
from worker.engine.graph.files import size_of_weights
from worker.engine.graph.passes.opset import raise_opset
from worker.engine.measure.kernel_times import Kernel, time_kernels
from worker.engine.quantization.layer_costs import find_links, find_units, stored_bytes, unit_times
from worker.engine.quantization.pairs import Scheme, quantize_graph
from worker.engine.quantization.placement import Way
from worker.engine.quantization.target import find_target

Builder = Callable[..., onnx.ModelProto]
NAMES = ["conv1", "conv2", "conv3", "fc"]


def in_integers(graph: Graph, bits: WeightBits) -> Graph:
    """All layers of the tiny CNN, with ranges of -1 to 1."""
    ranges = {value.name or "": (-1.0, 1.0) for node in graph.nodes() for value in node.outputs}
    scheme = Scheme(find_target("cpu-x86"), WeightQuantization(bits=bits), ActivationQuantization())
    return quantize_graph(graph, NAMES, Way("all"), ranges | {"x": (-1.0, 1.0)}, scheme).graph


@pytest.fixture
def graph(make_cnn: Builder) -> Graph:
    graph = Graph.from_proto(make_cnn(classes=5))
    raise_opset(graph, 21)
    graph.infer_shapes()
    return graph


def test_bytes_of_all_layers_are_those_of_the_graph(graph: Graph) -> None:
    units = find_units(graph.layers())
    assert units == [{name} for name in NAMES]
    assert sum(stored_bytes(graph, unit) for unit in units) == size_of_weights(graph.model)


def test_bytes_are_codes_scales_zero_points_and_biases(graph: Graph) -> None:
    channels, weights = np.array([8, 8, 16, 5]), np.array([216, 72, 128, 80])
    for bits, codes, points in ((8, weights, channels), (4, weights / 2, np.ceil(channels / 2))):
        quantized = in_integers(graph, bits)
        expected = codes + points + 4 * channels + 8 * channels  # scales; int32 biases and their scales
        assert [stored_bytes(quantized, frozenset({name})) for name in NAMES] == expected.tolist()


def test_a_weight_that_others_read_is_not_theirs(make_attention: Builder) -> None:
    graph = Graph.from_proto(make_attention())
    graph.infer_shapes()
    embedding = size_of_weights(graph.model) - stored_bytes(graph, frozenset({"embed", "logits"}))
    assert stored_bytes(graph, frozenset({"logits"})) == 0
    assert embedding == size_of_weights(graph.model) - 20 * 16 * 4
    assert {"embed", "logits"} in find_units(graph.layers())


def test_kernels_are_known_by_what_is_left_of_their_names(graph: Graph) -> None:
    kernels = [
        Kernel("r1_nchwc", "Conv", 1),  # by the output of the Relu that it absorbed
        Kernel("c2_nchwc", "Conv", 2),
        Kernel("relu2", "Relu", 4),
        Kernel("conv3_token_7", "QLinearConv", 8),
        Kernel("fused fc/MatMulAddFusion", "FusedGemm", 16),
        Kernel("ReorderOutput", "ReorderOutput", 32),
    ]
    times = unit_times(graph, find_units(graph.layers()), kernels)
    assert times.units == [1, 2, 8, 16]
    assert times.rest == 36


def test_a_layer_does_not_claim_the_kernel_of_the_one_before(graph: Graph) -> None:
    kernels = [Kernel("r1_nchwc", "Conv", 1), Kernel("r2_nchwc", "Conv", 2), Kernel("r3_nchwc", "Conv", 4)]
    assert unit_times(graph, find_units(graph.layers()), kernels).units == [1, 2, 4, 0]


def test_kernels_of_unknown_names_are_shared_by_products(graph: Graph) -> None:
    kernels = [Kernel("conv1", "Conv", 10), Kernel("what", "Conv", 20), Kernel("ever", "Gemm", 4)]
    times = unit_times(graph, find_units(graph.layers()), kernels)
    products = np.array([72 * 16, 128 * 16, 80])  # 4 x 4 positions
    assert times.units == pytest.approx([10, *24 * products / products.sum()])
    assert times.rest == pytest.approx(0)


def test_unpacking_a_weight_is_its_layer_s_time(graph: Graph) -> None:
    quantized = in_integers(graph, 4)
    unpack = next(node for node in quantized.nodes() if "conv2.weight" in str(node.outputs[0].name))
    kernels = [Kernel(str(unpack.name), "DequantizeLinear", 3), Kernel("conv2", "Conv", 5)]
    assert unit_times(quantized, find_units(graph.layers()), kernels).units == [0, 8, 0, 0]


def test_every_layer_has_a_kernel_in_the_profile(graph: Graph) -> None:
    feed = {"x": np.ones((1, 3, 8, 8), np.float32)}
    graphs = [graph, in_integers(graph, 8), in_integers(graph, 4)]
    for each, kernels in zip(graphs, time_kernels(graphs, feed, budget_s=0), strict=True):
        assert all(kernel.microseconds >= 0 for kernel in kernels)
        assert all(time > 0 for time in unit_times(each, find_units(graph.layers()), kernels).units)


def test_links_are_between_layers_with_no_other_between(graph: Graph) -> None:
    assert find_links(graph, find_units(graph.layers())) == {(0, 1): 8 * 4 * 4, (1, 2): 8 * 4 * 4, (2, 3): 16}


def test_layers_that_read_one_tensor_link_to_its_maker_alone(make_attention: Builder) -> None:
    graph = Graph.from_proto(make_attention())
    graph.infer_shapes()
    units = find_units(layer for layer in graph.layers() if layer.op == "MatMul")
    names = {frozenset(str(*units[side]) for side in pair) for pair in find_links(graph, units)}
    assert {
        frozenset(pair) for pair in (("query", "out"), ("key", "out"), ("value", "out"), ("out", "logits"))
    } == names
