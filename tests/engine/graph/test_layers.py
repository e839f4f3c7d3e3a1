"""Which nodes are layers, where their weights lie, and how they are chosen."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph, Layer

Builder = Callable[..., onnx.ModelProto]
Arrays = dict[str, np.ndarray]


def layer_of(nodes: list[onnx.NodeProto], stored: Arrays) -> Layer:
    """The only layer of a graph of `nodes`; `stored` maps names to arrays."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    (layer,) = Graph.from_proto(helper.make_model(graph, ir_version=10)).layers()
    return layer


def test_layers_of_each_kind(
    make_cnn: Builder, make_lstm: Builder, make_attention: Builder, make_if_model: Builder
) -> None:
    assert [layer.name for layer in Graph.from_proto(make_cnn()).layers()] == ["conv1", "conv2", "conv3", "fc"]
    lstm, fc = Graph.from_proto(make_lstm()).layers()
    assert [value.name for value in lstm.weights] == ["lstm.W", "lstm.R"]
    assert (lstm.output_axis, lstm.reduction_axes) == (1, (2,))
    assert (fc.output_axis, fc.reduction_axes) == (0, (1,))
    names = [layer.name for layer in Graph.from_proto(make_attention()).layers()]
    assert names == ["embed", "query", "key", "value", "out", "logits"]
    assert [layer.name for layer in Graph.from_proto(make_if_model()).layers()] == ["thin", "wide1", "wide2"]


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "output_axis", "reduction_axes"),
    [
        ("Conv", {}, (4, 3, 1, 1), 0, (1, 2, 3)),
        ("ConvTranspose", {}, (3, 4, 1, 1), 1, (0, 2, 3)),
        ("Gemm", {}, (3, 4), 1, (0,)),
        ("Gemm", {"transB": 1}, (4, 3), 0, (1,)),
        ("MatMul", {}, (3, 4), 1, (0,)),
        ("MatMul", {}, (5, 3, 4), 2, (1,)),
    ],
)
def test_axes(
    op: str, attributes: dict[str, int], shape: tuple[int, ...], output_axis: int, reduction_axes: tuple[int, ...]
) -> None:
    nodes = [helper.make_node(op, ["x", "w"], ["y"], "n", **attributes)]
    layer = layer_of(nodes, {"w": np.ones(shape, np.float32)})
    assert (layer.output_axis, layer.reduction_axes) == (output_axis, reduction_axes)


def test_a_constant_on_the_left_is_a_weight() -> None:
    layer = layer_of([helper.make_node("MatMul", ["w", "x"], ["y"], "n")], {"w": np.ones((4, 2), np.float32)})
    assert (layer.weight.name, layer.output_axis, layer.reduction_axes) == ("w", 0, (1,))


def test_axes_follow_a_transpose() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], "t", perm=[1, 2, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"], "n"),
    ]
    layer = layer_of(nodes, {"w": np.ones((4, 5, 3), np.float32)})
    # t is 5 x 3 x 4: its last axis is the first of w, its middle one the last of w.
    assert (layer.output_axis, layer.reduction_axes) == (0, (2,))


def test_weights_are_found_behind_dequantization() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], "dq"),
        helper.make_node("Gemm", ["x", "d"], ["y"], "n"),
    ]
    layer = layer_of(nodes, {"w": np.ones((3, 4), np.int8), "s": np.ones((), np.float32)})
    assert layer.weight.name == "w"


def test_a_vector_or_a_list_of_indices_is_no_weight() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["g"], "shape_arithmetic"),
        helper.make_node("MatMul", ["x", "v"], ["m"], "dot"),
        helper.make_node("Identity", ["g"], ["y"], "end"),
    ]
    stored = {
        "table": np.arange(4).reshape(2, 2),
        "i": np.zeros((), np.int64),
        "v": np.ones(3, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    assert Graph.from_proto(helper.make_model(graph, ir_version=10)).layers() == []


@pytest.mark.parametrize(
    ("include", "exclude", "want"),
    [
        ((), (), ["conv1", "conv2", "conv3", "fc"]),
        (("conv*",), (), ["conv1", "conv2", "conv3"]),
        (("conv[12]", "fc"), ("conv2",), ["conv1", "fc"]),
        ((), ("*",), []),
    ],
)
def test_select(make_cnn: Builder, include: tuple[str, ...], exclude: tuple[str, ...], want: list[str]) -> None:
    assert [layer.name for layer in Graph.from_proto(make_cnn()).select(include, exclude)] == want


def test_select_refuses_a_pattern_that_matches_nothing(make_cnn: Builder) -> None:
    with pytest.raises(SlimlineError) as refusal:
        Graph.from_proto(make_cnn()).select(exclude=["layer4.*"])
    assert refusal.value.failure.code == "LAYER_UNKNOWN"
    assert "conv1" in refusal.value.failure.hint


def test_an_endless_pattern_is_not_echoed(make_cnn: Builder) -> None:
    with pytest.raises(SlimlineError) as refusal:
        Graph.from_proto(make_cnn()).select(["begin" + "x" * 900_000 + "end"])
    assert len(refusal.value.failure.message) < 120
    assert "'begin" in refusal.value.failure.message


def test_a_name_with_brackets_is_taken_as_it_is(make_mlp: Builder) -> None:
    model = make_mlp()
    model.graph.node[0].name = "fc[0]"
    assert [layer.name for layer in Graph.from_proto(model).select(["fc[0]"])] == ["fc[0]"]
