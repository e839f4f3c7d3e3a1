"""Tiny models for the engine's tests: builders that make an onnx.ModelProto, and exports of the zoo."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.zoo import zoo
from benchmarks.zoo.entry import Exported

Builder = Callable[..., onnx.ModelProto]

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # there is a process of tests for each core


@pytest.fixture(autouse=True)
def _same_numbers(request: pytest.FixtureRequest) -> None:
    """What a test draws at random does not hang on the tests before it: one that fails fails alone, too."""
    torch.manual_seed(0)
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


def _weights(rng: np.random.Generator, **shapes: Sequence[int]) -> list[TensorProto]:
    return [
        numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def _ints(name: str, values: Sequence[int]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _floats(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[TensorProto],
    opset: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, producer_name="slimline-tests"
    )
    onnx.checker.check_model(model)
    return model


def _cnn(
    *, seed: int = 0, opset: int = 18, channels: int = 8, classes: int = 4, size: int = 8, batch: int | str = "batch"
) -> onnx.ModelProto:
    """x [batch, 3, size, size] -> Conv, depthwise Conv, pointwise Conv, mean, Gemm -> y [batch, classes]."""
    c = channels
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "conv2.weight", "conv2.bias"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=c),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "conv3.weight", "conv3.bias"], ["c3"], "conv3"),
        helper.make_node("Relu", ["c3"], ["r3"], "relu3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    weights = _weights(
        rng,
        **{
            "conv1.weight": (c, 3, 3, 3),
            "conv1.bias": (c,),
            "conv2.weight": (c, 1, 3, 3),
            "conv2.bias": (c,),
            "conv3.weight": (2 * c, c, 1, 1),
            "conv3.bias": (2 * c,),
            "fc.weight": (classes, 2 * c),
            "fc.bias": (classes,),
        },
    )
    return _model(nodes, [_floats("x", [batch, 3, size, size])], [_floats("y", [batch, classes])], weights, opset)


def _mlp(*, seed: int = 0, opset: int = 18, features: int = 16, hidden: int = 32, classes: int = 4) -> onnx.ModelProto:
    """x [batch, features] -> MatMul Add Relu -> Gemm (weight not transposed) -> y [batch, classes]."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("MatMul", ["x", "fc1.weight"], ["m1"], "fc1"),
        helper.make_node("Add", ["m1", "fc1.bias"], ["a1"], "fc1_bias"),
        helper.make_node("Relu", ["a1"], ["r1"], "relu1"),
        helper.make_node("Gemm", ["r1", "fc2.weight", "fc2.bias"], ["y"], "fc2"),
    ]
    weights = _weights(
        rng,
        **{
            "fc1.weight": (features, hidden),
            "fc1.bias": (hidden,),
            "fc2.weight": (hidden, classes),
            "fc2.bias": (classes,),
        },
    )
    return _model(nodes, [_floats("x", ["batch", features])], [_floats("y", ["batch", classes])], weights, opset)


def _lstm(
    *, seed: int = 0, opset: int = 18, steps: int = 5, features: int = 6, hidden: int = 8, classes: int = 3
) -> onnx.ModelProto:
    """x [batch, steps, features] -> bidirectional LSTM, last state of both directions -> Gemm -> y [batch, classes]."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], "time_first", perm=[1, 0, 2]),
        helper.make_node(
            "LSTM",
            ["xt", "lstm.W", "lstm.R", "lstm.B"],
            ["", "h"],
            "lstm",
            hidden_size=hidden,
            direction="bidirectional",
        ),
        helper.make_node("Transpose", ["h"], ["ht"], "batch_first", perm=[1, 0, 2]),
        helper.make_node("Reshape", ["ht", "flat"], ["hf"], "join"),
        helper.make_node("Gemm", ["hf", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    weights = _weights(
        rng,
        **{
            "lstm.W": (2, 4 * hidden, features),
            "lstm.R": (2, 4 * hidden, hidden),
            "lstm.B": (2, 8 * hidden),
            "fc.weight": (classes, 2 * hidden),
            "fc.bias": (classes,),
        },
    )
    inputs = [_floats("x", ["batch", steps, features])]
    return _model(nodes, inputs, [_floats("y", ["batch", classes])], [*weights, _ints("flat", [0, -1])], opset)


def _attention(
    *, seed: int = 0, opset: int = 18, vocabulary: int = 20, width: int = 16, heads: int = 2, length: int = 6
) -> onnx.ModelProto:
    """tokens int64 [batch, length] -> embedding, normalization, self-attention -> y: logits over the tied table."""
    rng = np.random.default_rng(seed)
    head = width // heads
    nodes = [
        helper.make_node("Gather", ["embedding", "tokens"], ["e"], "embed"),
        helper.make_node("LayerNormalization", ["e", "norm.scale", "norm.bias"], ["n"], "norm", axis=-1),
    ]
    for part in ("query", "key", "value"):
        order = [0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
        nodes += [
            helper.make_node("MatMul", ["n", f"{part}.weight"], [f"{part}_m"], part),
            helper.make_node("Add", [f"{part}_m", f"{part}.bias"], [f"{part}_a"], f"{part}_bias"),
            helper.make_node("Reshape", [f"{part}_a", "split"], [f"{part}_s"], f"{part}_split"),
            helper.make_node("Transpose", [f"{part}_s"], [f"{part}_h"], f"{part}_heads", perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["query_h", "key_h"], ["scores"], "scores"),
        helper.make_node("Mul", ["scores", "root"], ["scaled"], "scale"),
        helper.make_node("Softmax", ["scaled"], ["p"], "softmax", axis=-1),
        helper.make_node("MatMul", ["p", "value_h"], ["mixed"], "mix"),
        helper.make_node("Transpose", ["mixed"], ["mixed_t"], "heads_back", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["mixed_t", "merge"], ["merged"], "merge_heads"),
        helper.make_node("MatMul", ["merged", "out.weight"], ["o"], "out"),
        helper.make_node("Add", ["o", "e"], ["res"], "residual"),
        helper.make_node("Transpose", ["embedding"], ["table_t"], "table_transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["res", "table_t"], ["y"], "logits"),
    ]
    shapes: dict[str, Sequence[int]] = {"embedding": (vocabulary, width), "norm.scale": (width,), "norm.bias": (width,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{part}.weight": (width, width), f"{part}.bias": (width,)}
    weights = _weights(rng, **shapes, **{"out.weight": (width, width)})
    constants = [
        _ints("split", [0, 0, heads, head]),
        _ints("merge", [0, 0, width]),
        numpy_helper.from_array(np.array(head**-0.5, np.float32), "root"),
    ]
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", length])
    return _model(nodes, [tokens], [_floats("y", ["batch", length, vocabulary])], weights + constants, opset)


def _if_model(*, seed: int = 0, opset: int = 18, features: int = 8, classes: int = 3) -> onnx.ModelProto:
    """x [batch, features], wide bool [] -> If: two Gemms or one, all weights in the bodies -> y [batch, classes]."""
    rng = np.random.default_rng(seed)
    then = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "wide1.weight", "wide1.bias"], ["w1"], "wide1", transB=1),
            helper.make_node("Relu", ["w1"], ["wr"], "wide_relu"),
            helper.make_node("Gemm", ["wr", "wide2.weight", "wide2.bias"], ["then_y"], "wide2", transB=1),
        ],
        "then",
        [],
        [_floats("then_y", ["batch", classes])],
        _weights(
            rng,
            **{
                "wide1.weight": (2 * features, features),
                "wide1.bias": (2 * features,),
                "wide2.weight": (classes, 2 * features),
                "wide2.bias": (classes,),
            },
        ),
    )
    other = helper.make_graph(
        [helper.make_node("Gemm", ["x", "thin.weight", "thin.bias"], ["else_y"], "thin", transB=1)],
        "else",
        [],
        [_floats("else_y", ["batch", classes])],
        _weights(rng, **{"thin.weight": (classes, features), "thin.bias": (classes,)}),
    )
    nodes = [helper.make_node("If", ["wide"], ["y"], "choose", then_branch=then, else_branch=other)]
    inputs = [_floats("x", ["batch", features]), helper.make_tensor_value_info("wide", TensorProto.BOOL, [])]
    return _model(nodes, inputs, [_floats("y", ["batch", classes])], [], opset)


@pytest.fixture(scope="session")
def make_cnn() -> Builder:
    return _cnn


@pytest.fixture(scope="session")
def make_mlp() -> Builder:
    return _mlp


@pytest.fixture(scope="session")
def make_lstm() -> Builder:
    return _lstm


@pytest.fixture(scope="session")
def make_attention() -> Builder:
    return _attention


@pytest.fixture(scope="session")
def make_if_model() -> Builder:
    return _if_model


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """`export(name)` -> the tiny model of that name in the zoo, exported once per session."""
    folder = tmp_path_factory.mktemp("exports")
    done: dict[str, Exported] = {}

    def export_once(name: str) -> Exported:
        if name not in done:
            done[name] = zoo("tiny")[name].export_both(folder)
        return done[name]

    return export_once


@pytest.fixture(
    scope="session", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"zoo-{name}")) for name in zoo("tiny")]
)
def exported(request: pytest.FixtureRequest, export: Callable[[str], Exported]) -> Exported:
    """Each tiny model of the zoo in turn, or those that a test names by indirect parametrization."""
    return export(request.param)
