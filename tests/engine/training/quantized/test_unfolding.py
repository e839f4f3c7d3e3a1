"""A quantized graph and its trainable form compute the same to the last bit; what has no gradient stays."""

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.quantized import QuantizedRewriting, has_codes

Builder = Callable[..., onnx.ModelProto]
Quantize = Callable[..., tuple[Graph, Any]]
Attached = Callable[[Graph], tuple[QuantizedRewriting, TorchGraph]]
Array = np.ndarray[Any, Any]

STATIC = "quantize.static"
FOUR = "quantize.static:weights.bits=4"
WHOLE = "quantize.static:weights.per_channel=false,weights.symmetric=false"
BLOCKS = "quantize.weights:bits=4,kernel=standard"
CASES = [
    *[("make_cnn", recipe) for recipe in (STATIC, FOUR, WHOLE, BLOCKS, "quantize.weights:kernel=standard")],
    ("make_cnn", "quantize.static:weights.bits=4,weights.per_channel=false,weights.symmetric=false"),
    ("make_cnn", "quantize.static:activations.bits=16,target=tensorrt"),
    ("make_mlp", STATIC),
    ("make_mlp", BLOCKS),
    ("make_attention", FOUR),
    ("make_attention", WHOLE),
    ("make_attention", f"{BLOCKS},block_size=16,symmetric=true"),
    ("make_if_model", STATIC),
    ("make_if_model", BLOCKS),
    ("make_lstm", BLOCKS),
]


@pytest.mark.parametrize(("model", "recipe"), CASES)
def test_no_bit_changes_and_the_way_back_gives_the_same_file(
    model: str, recipe: str, quantize: Quantize, attached: Attached, request: pytest.FixtureRequest
) -> None:
    graph, run = quantize(request.getfixturevalue(model)(), recipe)
    before = graph.proto().SerializeToString()
    rewriting, module = attached(graph)
    assert np.array_equal(run.torch(graph), run.torch(module))
    assert rewriting.finish(module).proto().SerializeToString() == before == graph.proto().SerializeToString()


def test_weights_and_biases_are_floats_under_the_names_of_their_codes(make_cnn: Builder, quantize: Quantize) -> None:
    graph, _ = quantize(make_cnn(), STATIC)
    rewriting = QuantizedRewriting(graph)
    for name in ("conv1.weight_quantized", "conv1.bias_quantized", "fc.weight_quantized"):
        codes, scale = graph.array(name), graph.array(name.replace("quantized", "scale"))
        step = scale.reshape(-1, *[1] * (codes.ndim - 1))
        assert np.array_equal(rewriting.graph.array(name), codes.astype(np.float32) * step)
    layers = {layer.name: layer.weight.name for layer in rewriting.graph.layers()}
    assert layers == {layer.name: layer.weight.name for layer in graph.layers()}


def test_pruned_weights_are_exactly_zero(make_cnn: Builder, quantize: Quantize) -> None:
    model = make_cnn()
    (weight,) = (each for each in model.graph.initializer if each.name == "conv3.weight")
    pruned = numpy_helper.to_array(weight).copy()
    pruned[::2] = 0
    weight.CopyFrom(numpy_helper.from_array(pruned, weight.name))
    for recipe in (STATIC, WHOLE):
        graph, _ = quantize(model, recipe)
        assert not QuantizedRewriting(graph).graph.array("conv3.weight_quantized")[::2].any()


def dequantized(codes: Array, scale: Array, zero_point: Array | None, opset: int, **attributes: int) -> Graph:
    """x + DequantizeLinear(codes) -> y."""
    arrays = {"codes": codes, "scale": scale} | ({} if zero_point is None else {"zero": zero_point})
    nodes = [
        helper.make_node("DequantizeLinear", list(arrays), ["w"], "restore", **attributes),
        helper.make_node("Add", ["x", "w"], ["y"], "sum"),
    ]
    kind = helper.np_dtype_to_tensor_dtype(scale.dtype)
    tensors = [helper.make_tensor_value_info(name, kind, codes.shape) for name in "xy"]
    graph = helper.make_graph(nodes, "one", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return Graph.from_proto(model)


TYPES = [np.int8, np.uint8, np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4]
CODED = [
    *itertools.product(TYPES, [21], ["tensor", "axis", "block"], [True, False], [np.float32]),
    *itertools.product(TYPES[:2] + TYPES[4:], [21], ["axis", "block"], [True, False], [np.float16]),
    *itertools.product(TYPES[:2], [13], ["tensor", "axis"], [True, False], [np.float32]),
    *itertools.product([ml_dtypes.int4, ml_dtypes.int2], [25], ["axis", "block"], [True, False], [np.float32]),
]


@pytest.mark.parametrize(("dtype", "opset", "granularity", "has_zero_point", "floats"), CODED)
def test_every_code_of_every_type_comes_back(
    dtype: type, opset: int, granularity: str, has_zero_point: bool, floats: type, attached: Attached
) -> None:
    limits = (ml_dtypes.iinfo if dtype.__module__ == "ml_dtypes" else np.iinfo)(dtype)
    generator = np.random.default_rng(0)
    codes = np.resize(np.arange(int(limits.min), int(limits.max) + 1), (64, 4096 if limits.bits == 16 else 16))
    shape = {"tensor": (), "axis": (64,), "block": (4, codes.shape[1])}[granularity]
    scale = np.exp(generator.normal(-5, 2, shape)).astype(floats)
    zero = generator.integers(int(limits.min), int(limits.max) + 1, shape)
    attributes = {"tensor": {}, "axis": {"axis": 0}, "block": {"axis": 0, "block_size": 16}}[granularity]
    graph = dequantized(
        codes.astype(np.int32).astype(dtype),
        scale,
        np.array(zero).astype(dtype) if has_zero_point else None,
        opset,
        **attributes,
    )
    rewriting, module = attached(graph)
    assert rewriting.graph.initializer("codes").dtype != graph.initializer("codes").dtype
    assert np.array_equal(rewriting.finish(module).array("codes").astype(int), codes)


def test_codes_that_floats_would_not_give_back_stay() -> None:
    graph = dequantized(np.array([[1, 2], [3, 4]], np.int8), np.array([0.5, 0], np.float32), None, 21, axis=0)
    rewriting = QuantizedRewriting(graph)
    assert rewriting.graph.initializer("codes").dtype == ir.DataType.INT8
    assert not rewriting.scales


def test_products_of_integers_are_left_alone_and_told(
    make_mlp: Builder, quantize: Quantize, attached: Attached
) -> None:
    for recipe, told in (("quantize.dynamic", "multiplies integers"), ("quantize.weights:bits=4", "packed integers")):
        graph, run = quantize(make_mlp(), recipe)
        assert has_codes(graph)
        rewriting, module = attached(graph)
        assert len(rewriting.untrained) == 2
        assert all(told in reason for reason in rewriting.untrained.values())
        assert np.array_equal(run.torch(graph), run.torch(module))
        moving = {name for name, each in module.named_parameters() if each.requires_grad}
        assert not [name for name in moving if "scale" in name]
        assert rewriting.finish(module).proto().SerializeToString() == graph.proto().SerializeToString()


def test_a_bias_shared_by_layers_of_other_scales_is_parted(
    make_cnn: Builder, quantize: Quantize, attached: Attached
) -> None:
    graph, run = quantize(make_cnn(), STATIC)
    first, second = (
        next(use for node in graph.nodes() if node.name == name for use in [node.inputs[2].producer()])
        for name in ("conv1", "conv2")
    )
    second.replace_input_with(0, first.inputs[0])
    rewriting, module = attached(graph)
    assert np.array_equal(run.torch(graph), run.torch(module))
    biases = {node.name: node.inputs[2] for node in rewriting.graph.nodes() if node.name in ("conv1", "conv2")}
    assert biases["conv1"] is not biases["conv2"]
    finished = rewriting.finish(module)
    assert np.array_equal(run.ort(graph), run.ort(finished))
