"""Multiply-accumulates and weight counts, against numbers worked out by hand."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.graph.cost import WeightCount, count_weights, macs, macs_per_node

Builder = Callable[..., onnx.ModelProto]
Shape = list[int | str | None]
FLOAT = TensorProto.FLOAT
PACKED = {"K": 8, "N": 5, "bits": 4, "block_size": 16}


def graph_of(
    nodes: list[onnx.NodeProto], inputs: dict[str, Shape], stored: dict[str, np.ndarray] | None = None
) -> Graph:
    """A graph whose inputs are floats and whose output is the last node's."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (stored or {}).items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return Graph.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def ones(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def test_a_small_network(make_cnn: Builder) -> None:
    graph = Graph.from_proto(make_cnn(channels=8, classes=4, size=8))
    by_hand = {"conv1": 8 * 64 * 27, "conv2": 8 * 16 * 9, "conv3": 16 * 16 * 8, "fc": 16 * 4}
    assert macs_per_node(graph) == by_hand
    assert macs(graph) == sum(by_hand.values())
    assert macs(Graph.from_proto(make_cnn(batch=5))) == macs(graph)


def test_recurrent(make_lstm: Builder) -> None:
    graph = Graph.from_proto(make_lstm(steps=5, features=6, hidden=8, classes=3))
    assert macs(graph) == 5 * 2 * 4 * 8 * (6 + 8) + 16 * 3


def test_attention_counts_products_without_weights(make_attention: Builder) -> None:
    graph = Graph.from_proto(make_attention(vocabulary=20, width=16, heads=2, length=6))
    assert macs(graph) == 4 * 6 * 16 * 16 + 2 * 6 * 6 * 16 + 6 * 16 * 20


def test_of_an_if_the_dearer_branch_counts(make_if_model: Builder) -> None:
    assert macs(Graph.from_proto(make_if_model(features=8, classes=3))) == 8 * 16 + 16 * 3


def test_transposed_and_grouped_convolution() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], "n", strides=[2, 2], group=2)
    assert macs(graph_of([node], {"x": ["n", 4, 5, 5]}, {"w": ones(4, 3, 2, 2)})) == 4 * 25 * 3 * 4


def test_gemm_with_both_sides_transposed() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "n", transA=1, transB=1)
    graph = graph_of([node], {"x": [7, "n"]}, {"w": ones(3, 7)})
    assert macs(graph) == 7 * 3


def test_einsum_and_attention_nodes() -> None:
    einsum = helper.make_node("Einsum", ["a", "b"], ["y"], "n", equation="bij,bjk->bik")
    assert macs(graph_of([einsum], {"a": ["n", 2, 3], "b": ["n", 3, 5]})) == 30


def test_packed_attention_projects_then_attends() -> None:
    node = helper.make_node("Attention", ["x", "w", "b"], ["y"], "n", domain="com.microsoft", num_heads=2)
    graph = graph_of([node], {"x": ["n", 5, 8]}, {"w": ones(8, 24), "b": ones(24)})
    assert macs(graph) == 5 * 8 * 24 + 2 * 5 * 5 * 8


def test_a_fixed_batch_is_divided_by_and_unknown_sizes_stay_unknown() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "n")
    assert macs(graph_of([node], {"x": [6, 2, 3]}, {"w": ones(3, 4)})) == 2 * 3 * 4
    assert macs(graph_of([node], {"x": [None, 2, 3]}, {"w": ones(3, 4)})) == 2 * 3 * 4
    assert macs(graph_of([node], {"x": ["time", "batch", 3]}, {"w": ones(3, 4)})) is None
    assert macs(graph_of([node], {"x": [2, "batch", 3]}, {"w": ones(3, 4)})) == 2 * 3 * 4


def test_shape_arithmetic_that_needs_the_batch_is_followed() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Gather", ["s", "zero"], ["b"], "pick"),
        helper.make_node("Mul", ["b", "two"], ["b2"], "double"),
        helper.make_node("Concat", ["b2", "rest"], ["to"], "to", axis=0),
        helper.make_node("Reshape", ["x", "to"], ["r"], "reshape"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "n"),
    ]
    stored = {"zero": np.array([0]), "two": np.array([2]), "rest": np.array([3]), "w": ones(3, 5)}
    assert macs(graph_of(nodes, {"x": ["batch", 6]}, stored)) == 2 * 3 * 5


@pytest.mark.parametrize(
    ("op", "attributes", "stored", "want"),
    [
        ("FusedConv", {"activation": "Relu"}, {"w": ones(4, 2, 3, 3)}, 4 * 36 * 18),
        ("DynamicQuantizeMatMul", {}, {"w": ones(8, 5, dtype=np.int8), "s": ones(1)}, 2 * 8 * 8 * 5),
        ("MatMulNBits", PACKED, {"w": ones(5, 1, 8, dtype=np.uint8), "s": ones(5)}, 2 * 8 * 8 * 5),
        ("Gelu", {}, {}, 0),
        ("SomethingNew", {}, {}, None),
    ],
)
def test_operators_of_onnx_runtime(
    op: str, attributes: dict[str, int], stored: dict[str, np.ndarray], want: int | None
) -> None:
    node = helper.make_node(op, ["x", *stored], ["y"], "n", domain="com.microsoft", **attributes)
    assert macs(graph_of([node], {"x": ["n", 2, 8, 8]}, stored)) == want


def test_what_follows_an_operator_of_onnx_runtime_keeps_its_shape() -> None:
    nodes = [
        helper.make_node(
            "DynamicQuantizeLSTM",
            ["x", "W", "R", "", "", "", "", "", "s", "z", "s", "z"],
            ["", "h"],
            "lstm",
            domain="com.microsoft",
            hidden_size=4,
        ),
        helper.make_node("Squeeze", ["h", "first"], ["q"], "squeeze"),
        helper.make_node("MatMul", ["q", "w"], ["y"], "fc"),
    ]
    stored = {
        "W": ones(1, 3, 16, dtype=np.int8),
        "R": ones(1, 4, 16, dtype=np.int8),
        "s": ones(1),
        "z": np.zeros(1, np.int8),
        "first": np.array([0]),
        "w": ones(4, 6),
    }
    graph = graph_of(nodes, {"x": [7, "batch", 3]}, stored)
    assert macs_per_node(graph) == {"lstm": 7 * 16 * (3 + 4), "fc": 4 * 6}
    assert count_weights(graph) == WeightCount(112 + 24, 112 + 24, 112 * 8 + 24 * 32)


def test_a_loop_counts_its_trips() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["v", "w"], ["v2"], "inner"), helper.make_node("Identity", ["go"], ["go2"], "on")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("go2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", FLOAT, ["n", 4]),
        ],
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], "loop", body=body)
    stored = {"trips": np.array(6), "w": ones(4, 4)}
    assert macs(graph_of([node], {"x": ["n", 4]}, stored)) == 6 * 16


def test_weights_of_floats(make_mlp: Builder) -> None:
    model = make_mlp(features=3, hidden=4, classes=2)
    graph = Graph.from_proto(model)
    assert count_weights(graph) == WeightCount(26, 26, 26 * 32)
    graph.set_array("fc1.weight", np.zeros((3, 4), np.float16))
    assert count_weights(graph) == WeightCount(26, 14, 12 * 16 + 14 * 32)


def test_zero_is_the_zero_point_and_scales_are_no_weights() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], "dq", axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"], "n"),
    ]
    stored = {
        "w": np.array([[1, 2, 5], [4, 2, 3]], np.uint8),
        "s": ones(3),
        "z": np.array([1, 2, 3], np.uint8),
    }
    assert count_weights(graph_of(nodes, {"x": ["n", 2]}, stored)) == WeightCount(6, 2, 48)


def test_blocked_zero_points() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], "dq", axis=0, block_size=2),
        helper.make_node("MatMul", ["x", "d"], ["y"], "n"),
    ]
    stored = {
        "w": np.array([[1], [2], [5]], np.uint8),
        "s": ones(2, 1),
        "z": np.array([[1], [5]], np.uint8),
    }
    assert count_weights(graph_of(nodes, {"x": ["n", 3]}, stored)) == WeightCount(3, 1, 24)


def test_packed_four_bit_weights() -> None:
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], "n", domain="com.microsoft", K=3, N=1, bits=4, block_size=16
    )
    packed = np.full((1, 1, 8), 0x88, np.uint8)
    packed[0, 0, 0] = 0x98  # the second number is 9: one above the middle
    graph = graph_of([node], {"x": ["n", 3]}, {"w": packed, "s": ones(1)})
    assert count_weights(graph) == WeightCount(3, 1, 64)


def test_shapes_and_other_whole_numbers_are_no_weights(make_lstm: Builder) -> None:
    graph = Graph.from_proto(make_lstm(features=6, hidden=8, classes=3))
    assert count_weights(graph).count == 2 * 32 * (6 + 8) + 2 * 64 + 48 + 3
