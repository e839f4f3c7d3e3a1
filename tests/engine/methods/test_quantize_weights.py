"""`quantize.weights`: every kind of layer computes with what its codes stand for, fewer bytes, learned rounding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from app.contracts.failure import SlimlineError
from app.contracts.recipe.notation import parse_recipe
from worker.engine.graph import Graph
from worker.engine.graph.files import size_of_weights
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import sqnr_db

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]
STANDARD = "quantize.weights:bits=4,kernel=standard"


def two_valued(shape: tuple[int, ...], channel: int) -> np.ndarray:
    """Weights that 16 codes hold exactly: -7a and 8a, with another power of two a for each channel."""
    generator = np.random.default_rng(0)
    signs = generator.choice(np.array([-7, 8], np.float32), shape)
    lengths = [1] * len(shape)
    lengths[channel] = -1
    powers = 2.0 ** generator.integers(-6, -2, shape[channel])
    return (signs * powers.reshape(lengths)).astype(np.float32)


def floats(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def make_model(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], arrays: dict[str, np.ndarray], rank: int, opset: int
) -> onnx.ModelProto:
    """Its last node gives y, of `rank`."""
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    outputs = [floats("y", [f"y{axis}" for axis in range(rank)])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def make_layer(
    op: str, shape: tuple[int, ...], x: list[int | str], *, channel: int = 0, opset: int = 19, **attributes: Any
) -> onnx.ModelProto:
    """x -> the layer with weight `w` of `shape` -> y."""
    node = helper.make_node(op, ["x", "w"], ["y"], "layer", **attributes)
    return make_model([node], [floats("x", x)], {"w": two_valued(shape, channel)}, len(x), opset)


def make_recurrent(op: str, gates: int, hidden: int = 16, features: int = 20) -> onnx.ModelProto:
    """Bidirectional, on x [batch, 4, features]."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0, 2]),
        helper.make_node(op, ["t", "w", "r"], ["", "y"], "layer", hidden_size=hidden, direction="bidirectional"),
    ]
    arrays = {"w": two_valued((2, gates * hidden, features), 1), "r": two_valued((2, gates * hidden, hidden), 1)}
    return make_model(nodes, [floats("x", ["n", 4, features])], {k: v * 0.1 for k, v in arrays.items()}, 3, 19)


def make_turned(op: str) -> onnx.ModelProto:
    """MatMul by a weight [5, 48] that comes through `op`."""
    attributes = {"perm": [1, 0]} if op == "Transpose" else {}
    shape = (5, 48) if op == "Transpose" else (48, 5)
    nodes = [
        helper.make_node(op, ["w"], ["wt"], "turn", **attributes),
        helper.make_node("MatMul", ["x", "wt"], ["y"], "layer"),
    ]
    weight = two_valued(shape, 0 if op == "Transpose" else 1)
    return make_model(nodes, [floats("x", ["n", 48])], {"w": weight}, 2, 19)


def make_left() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["w", "x"], ["y"], "layer")
    return make_model([node], [floats("x", ["n", 40, 3])], {"w": two_valued((6, 40), 0)}, 3, 19)


def make_gemm(bias: tuple[int, ...] | None, **attributes: Any) -> onnx.ModelProto:
    shape, x = ((5, 48) if attributes.get("transB") else (48, 5)), ["n", 48]
    names = ["x", "w", *(["c"] if bias is not None else [])]
    arrays = {"w": two_valued(shape, 0 if attributes.get("transB") else 1)}
    if bias is not None:
        arrays["c"] = np.random.default_rng(1).normal(size=bias).astype(np.float32)
    node = helper.make_node("Gemm", names, ["y"], "layer", **attributes)
    return make_model([node], [floats("x", x)], arrays, 2, 19)


def make_gather() -> onnx.ModelProto:
    node = helper.make_node("Gather", ["w", "x"], ["y"], "layer")
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 4])
    return make_model([node], [x], {"w": two_valued((120, 24), 0)}, 3, 19)


KINDS: dict[str, Callable[[], onnx.ModelProto]] = {
    "Conv": lambda: make_layer("Conv", (6, 5, 3, 3), ["n", 5, 8, 8], pads=[1, 1, 1, 1]),
    "Conv 1d": lambda: make_layer("Conv", (6, 7, 5), ["n", 7, 16], strides=[2], dilations=[2], pads=[1, 2]),
    "Conv 1d same": lambda: make_layer("Conv", (6, 7, 4), ["n", 7, 16], strides=[2], auto_pad="SAME_LOWER"),
    "Conv 3d": lambda: make_layer("Conv", (4, 3, 2, 3, 2), ["n", 3, 5, 6, 4], strides=[1, 2, 1]),
    "Conv grouped": lambda: make_layer("Conv", (6, 4, 3, 3), ["n", 8, 6, 6], group=2),
    "Conv depthwise": lambda: make_layer("Conv", (6, 1, 3, 3), ["n", 6, 6, 6], group=6),
    "Conv pointwise": lambda: make_layer("Conv", (6, 40, 1, 1), ["n", 40, 3, 3]),
    "ConvTranspose": lambda: make_layer("ConvTranspose", (24, 5, 2, 2), ["n", 24, 4, 4], channel=1, strides=[2, 2]),
    "ConvTranspose narrow": lambda: make_layer("ConvTranspose", (6, 5, 3, 3), ["n", 6, 4, 4], channel=1),
    "ConvTranspose grouped": lambda: make_layer(
        "ConvTranspose", (32, 3, 2, 2), ["n", 32, 4, 4], channel=1, group=2, strides=[2, 2]
    ),
    "MatMul": lambda: make_layer("MatMul", (48, 5), ["n", 3, 48], channel=1),
    "MatMul N=1": lambda: make_layer("MatMul", (33, 1), ["n", 33], channel=1),
    "MatMul stack": lambda: make_layer("MatMul", (2, 40, 5), ["n", 2, 3, 40], channel=2),
    "MatMul left": make_left,
    "MatMul by a Transpose": lambda: make_turned("Transpose"),
    "MatMul by an Identity": lambda: make_turned("Identity"),
    "Gemm": lambda: make_gemm(None),
    "Gemm with a bias": lambda: make_gemm((5,), transB=1),
    "Gemm with a bias for all": lambda: make_gemm((1, 1)),
    "Gemm scaled": lambda: make_gemm((5,), alpha=0.5, beta=2.0, transB=1),
    "Gather": make_gather,
    "LSTM": lambda: make_recurrent("LSTM", 4),
    "GRU": lambda: make_recurrent("GRU", 3),
    "RNN": lambda: make_recurrent("RNN", 1),
}


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes()]


def stored(graph: Graph) -> set[str]:
    """Types of the initializers that are codes."""
    return {value.dtype.name for value in graph.initializers() if value.dtype and "quantized" in (value.name or "")}


@pytest.mark.parametrize("options", ["bits=4", "bits=4,block_size=null", "block_size=16,symmetric=false"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_codes_hold_exactly_leave_the_outputs_alone(kind: str, options: str, apply_step: Apply) -> None:
    """In ONNX Runtime as written, which multiplies floats then, and in the reference evaluator."""
    applied = apply_step(KINDS[kind](), f"quantize.weights:kernel=standard,{options}")
    (record,) = applied.record.layers
    assert record.done, record.reason
    assert record.sqnr_db is None or record.sqnr_db > 120
    assert size_of_weights(applied.after.model) < 0.5 * size_of_weights(applied.before.model)
    assert "com.microsoft" not in applied.after.model.opset_imports
    assert not {"w", "r"} & {value.name for value in applied.after.initializers()}
    proto = applied.after.proto()
    feed = applied.samples.first()
    expected = run_session(open_session(applied.before.proto().SerializeToString()), feed)[0]
    found = [run_session(open_session(proto.SerializeToString(), optimize=False), feed)[0]]
    if kind != "ConvTranspose grouped":  # which the evaluator does not run, in float either
        found.append(ReferenceEvaluator(proto).run(None, dict(feed))[0])
    for got in found:
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", ["bits=4", "bits=4,block_size=256", "block_size=32", "bits=8"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith(("MatMul", "Gemm"))])
def test_matrix_products_stay_close_on_integer_kernels(kind: str, options: str, apply_step: Apply) -> None:
    applied = apply_step(KINDS[kind](), f"quantize.weights:{options}")
    before, after = (np.concatenate([each.ravel() for each in side]) for side in applied.outputs())
    noise = sqnr_db(before, after)
    assert noise is None or noise > 30
    plain = kind not in {"MatMul stack", "MatMul left", "Gemm scaled"}
    assert ("MatMulNBits" in operators(applied.after)) == (plain and options != "bits=8")
    if plain and options != "bits=8":
        assert applied.record.layers[0].integer_kernel


def test_packed_codes_are_shared_by_the_layers_that_share_a_weight(apply_step: Apply) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "first"),
        helper.make_node("Relu", ["m"], ["a"], "relu"),
        helper.make_node("MatMul", ["a", "w"], ["y"], "second"),
    ]
    model = make_model(nodes, [floats("x", ["n", 64])], {"w": two_valued((64, 64), 1)}, 2, 19)
    applied = apply_step(model, "quantize.weights:bits=4")
    assert operators(applied.after).count("MatMulNBits") == 2
    assert applied.after.array("w_quantized").shape == (64, 2, 16)
    assert len(list(applied.after.initializers())) == 3


def test_a_tied_embedding_is_stored_once(make_attention: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_attention(), "quantize.weights:bits=4,rounding=gptq")
    assert all(record.done for record in applied.record.layers)
    assert sum("embedding" in (value.name or "") for value in applied.after.initializers()) == 3
    (table,) = (node for node in applied.after.nodes() if node.op_type == "DequantizeLinear")
    assert {use.node.op_type for use in table.outputs[0].uses()} == {"Gather", "Transpose"}


def test_of_tied_layers_an_excluded_one_keeps_its_weights(make_attention: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_attention(), "quantize.weights:exclude=logits")
    assert applied.reasons() == {
        "logits": "left out by the step",
        "embed": "logits, which the step excludes, reads the same weights",
    }
    assert applied.after.array("embedding").dtype == np.float32
    included = apply_step(make_attention(), "quantize.weights:include=embed")
    assert [record.layer for record in included.record.layers if record.done] == ["embed"]
    assert any(note.startswith("logits reads the same weights") for note in included.record.notes)


def test_include_leaves_other_layers_as_they_are(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), "quantize.weights:include=conv3")
    assert set(applied.reasons()) == {"conv1", "conv2", "fc"}
    assert stored(applied.after) == {"INT8"}
    for name in ("conv1.weight", "conv2.weight", "fc.weight", "conv3.bias"):
        np.testing.assert_array_equal(applied.after.array(name), applied.before.array(name))


@pytest.mark.parametrize(
    ("recipe", "opset", "types"),
    [
        ("quantize.weights", 18, {"INT8"}),
        ("quantize.weights:symmetric=false", 18, {"UINT8"}),
        ("quantize.weights:bits=4", 21, {"UINT4", "UINT8"}),
        ("quantize.weights:bits=4,symmetric=true,kernel=standard", 21, {"INT4"}),
        ("quantize.weights:block_size=16,kernel=standard", 21, {"INT8"}),
    ],
)
def test_the_opset_rises_only_where_it_must(
    make_cnn: Builder, apply_step: Apply, recipe: str, opset: int, types: set[str]
) -> None:
    model = make_cnn()
    model.ir_version = 8
    applied = apply_step(model, recipe)
    assert applied.after.opset == opset
    assert applied.after.model.ir_version == (10 if opset == 21 else 8)
    assert stored(applied.after) == types


def test_weights_in_the_bodies_of_an_if(make_if_model: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_if_model(features=32), "quantize.weights:bits=4,rounding=gptq")
    assert all(record.done for record in applied.record.layers)
    assert operators(applied.after).count("MatMulNBits") == 3
    assert {value.graph.name for value in applied.after.initializers()} == {"then", "else"}


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_learned_rounding_comes_closer_than_nearest(make_cnn: Builder, apply_step: Apply, rounding: str) -> None:
    """On inputs whose channels go together, which the layers behind the first one have."""
    model = make_cnn(channels=32, size=12)
    found = {}
    for how in ("nearest", rounding):
        applied = apply_step(model, f"quantize.weights:bits=4,rounding={how}")
        outputs = [np.concatenate(side) for side in applied.outputs()]
        found[how] = sqnr_db(*outputs), {each.layer: each.output_sqnr_db for each in applied.record.layers}
    assert found[rounding][0] > found["nearest"][0] + 2
    for layer in ("conv3", "fc"):
        assert found[rounding][1][layer] > found["nearest"][1][layer] + 2


@pytest.mark.parametrize(
    "kind",
    ["Conv", "Conv 1d", "Conv 1d same", "Conv 3d", "Conv grouped", "Conv depthwise", "ConvTranspose", "MatMul left"],
)
def test_gptq_sees_the_inputs_of_every_kind_of_layer(kind: str, apply_step: Apply) -> None:
    """Random weights, and inputs whose channels and last places go together."""
    model = KINDS[kind]()
    shape = tuple(model.graph.initializer[0].dims)
    weight = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    errors = [
        apply_step(mixed(model), f"quantize.weights:bits=4,rounding={how}").record.layers[-1].output_sqnr_db
        for how in ("nearest", "gptq")
    ]
    assert errors[1] > errors[0] + 1


def mixed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model on an input x of which axis 1 and the last axis are each multiplied by a matrix before."""
    result = onnx.ModelProto.FromString(model.SerializeToString())
    x, nodes = result.graph.input[0], list(result.graph.node)
    lengths = [dim.dim_value for dim in x.type.tensor_type.shape.dim]
    letters, x.name = "ncdhw"[: len(lengths)], "raw"
    del result.graph.node[:]
    for axis, source, target in ((1, "raw", "half"), (len(lengths) - 1, "half", "x")):
        size, letter = lengths[axis], letters[axis]
        matrix = np.random.default_rng(axis).normal(size=(size, size)) * np.geomspace(1, 0.03, size)
        result.graph.initializer.append(numpy_helper.from_array(matrix.astype(np.float32), f"{target}_matrix"))
        equation = f"z{letter},{letters}->{letters.replace(letter, 'z')}"
        inputs = [f"{target}_matrix", source]
        result.graph.node.append(helper.make_node("Einsum", inputs, [target], target, equation=equation))
    result.graph.node.extend(nodes)
    return result


def test_what_gptq_cannot_see_is_rounded_to_nearest_with_a_note(make_lstm: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_lstm(), "quantize.weights:bits=4,rounding=gptq")
    assert any(note.startswith("2 weights rounded to nearest") for note in applied.record.notes)
    plain = apply_step(make_lstm(), "quantize.weights:bits=4")
    np.testing.assert_array_equal(applied.after.array("lstm.W_quantized"), plain.after.array("lstm.W_quantized"))
    assert not np.array_equal(applied.after.array("fc.weight_quantized"), plain.after.array("fc.weight_quantized"))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_that_are_no_numbers_are_skipped_by_name(value: float, make_cnn: Builder, apply_step: Apply) -> None:
    model = make_cnn()
    for each in model.graph.initializer:
        if each.name == "conv3.weight":
            array = numpy_helper.to_array(each).copy()
            array.flat[3] = value
            each.CopyFrom(numpy_helper.from_array(array, each.name))
    applied = apply_step(model, "quantize.weights:bits=4")
    assert applied.reasons() == {"conv3": "its weights hold NaN or infinity"}


def test_constant_and_zero_weights(make_mlp: Builder, apply_step: Apply) -> None:
    model = make_mlp()
    for each in model.graph.initializer:
        array = np.full(tuple(each.dims), 0.0 if each.name == "fc1.weight" else 0.25, np.float32)
        each.CopyFrom(numpy_helper.from_array(array, each.name))
    for recipe in (STANDARD, "quantize.weights", "quantize.weights:bits=4,rounding=gptq"):
        before, after = (np.concatenate(side) for side in apply_step(model, recipe).outputs())
        np.testing.assert_allclose(after, before, rtol=0.01)


def test_a_weight_that_others_read_is_left_alone(make_mlp: Builder, apply_step: Apply) -> None:
    model = make_mlp()
    model.graph.node.append(helper.make_node("ReduceSum", ["fc1.weight"], ["total"], "sum", keepdims=0))
    model.graph.output.append(floats("total", []))
    assert apply_step(model, "quantize.weights").reasons() == {"fc1": "its weights are read by ReduceSum too"}


def test_too_small_to_gain_is_refused(apply_step: Apply) -> None:
    with pytest.raises(SlimlineError) as caught:
        apply_step(make_layer("Conv", (6, 1, 1, 1), ["n", 6, 4, 4], group=6), "quantize.weights")
    assert caught.value.failure.code == "NOTHING_TO_QUANTIZE"
    assert "too few to gain" in caught.value.failure.message


def test_twice_is_refused(make_mlp: Builder, apply_step: Apply) -> None:
    for recipe in ("quantize.weights:bits=4", "quantize.weights"):
        once = apply_step(make_mlp(), recipe).after.proto()
        with pytest.raises(SlimlineError) as caught:
            apply_step(once, "quantize.weights")
        assert caught.value.failure.code == "ALREADY_QUANTIZED"


@pytest.mark.parametrize("option", ["bits=3", "block_size=20", "rounding=up", "kernel=fast", "samples=0"])
def test_options_that_are_not_there_are_refused(option: str) -> None:
    with pytest.raises(SlimlineError) as caught:
        parse_recipe(f"quantize.weights:{option}")
    assert caught.value.failure.code == "OPTION_INVALID"
