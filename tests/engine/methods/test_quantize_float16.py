"""`quantize.float16`: half the bytes, float32 where float16 does not reach, types right at every border."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import sqnr_db

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def make_chain(*nodes: onnx.NodeProto, **initializers: np.ndarray) -> onnx.ModelProto:
    """x [batch, 4] -> nodes -> MatMul with `w` -> y [batch, 4]."""
    w = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", [nodes[-1].output[0] if nodes else "x", "w"], ["y"], "fc")],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in {"w": w, **initializers}.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def noise(applied: Any) -> float:
    return sqnr_db(*(np.concatenate(side) for side in applied.outputs())) or np.inf


@pytest.mark.parametrize("name", ["make_cnn", "make_mlp", "make_lstm", "make_attention", "make_if_model"])
def test_weights_take_half_the_bytes(name: str, request: pytest.FixtureRequest, apply_step: Apply) -> None:
    applied = apply_step(request.getfixturevalue(name)(), "quantize.float16")
    for layer in applied.before.layers():
        assert applied.after.array(layer.weight.name or "").dtype == np.float16
    assert noise(applied) > 50


def test_inputs_and_outputs_keep_their_type_or_not(make_mlp: Builder, apply_step: Apply) -> None:
    kept = apply_step(make_mlp(), "quantize.float16").after
    assert (kept.inputs[0].dtype, kept.outputs[0].dtype) == ("float", "float")
    given = apply_step(make_mlp(), "quantize.float16:keep_io=false").after
    assert (given.inputs[0].dtype, given.outputs[0].dtype) == ("float16", "float16")
    session = open_session(given.proto().SerializeToString())
    assert run_session(session, {"x": np.ones((2, 16), np.float16)})[0].dtype == np.float16


def test_a_mask_beyond_the_range_stays_float32(apply_step: Apply) -> None:
    lowest = np.array([-3.4e38, 0, 0, 0], np.float32)
    mask = [
        helper.make_node("Add", ["x", "mask"], ["a"], "add_mask"),
        helper.make_node("Softmax", ["a"], ["s"], "soft"),
    ]
    applied = apply_step(make_chain(*mask, mask=lowest), "quantize.float16")
    assert applied.after.array("mask").dtype == np.float32
    assert noise(applied) > 50
    assert any("kept in float32" in note for note in applied.record.notes)


def test_values_that_grow_beyond_the_range_stay_float32(apply_step: Apply) -> None:
    grow = [
        helper.make_node("Mul", ["x", "large"], ["g"], "grow"),
        helper.make_node("Mul", ["g", "large"], ["h"], "grow_more"),
        helper.make_node("Div", ["h", "square"], ["s"], "shrink"),
    ]
    large = np.array(1e4, np.float32)
    applied = apply_step(make_chain(*grow, large=large, square=large**2), "quantize.float16")
    after = [output for side in applied.outputs()[1:] for output in side]
    assert np.isfinite(np.concatenate(after)).all()
    assert noise(applied) > 45


def test_a_tiny_constant_stays_float32(apply_step: Apply) -> None:
    guarded = [
        helper.make_node("Sub", ["x", "x"], ["zero"], "zero"),
        helper.make_node("Add", ["zero", "epsilon"], ["e"], "guard"),
        helper.make_node("Div", ["epsilon", "e"], ["d"], "divide"),
    ]
    applied = apply_step(make_chain(*guarded, epsilon=np.array(1e-12, np.float32)), "quantize.float16")
    assert applied.after.array("epsilon").dtype == np.float32
    assert np.isfinite(np.concatenate(applied.outputs()[1])).all()


def test_operators_that_state_their_type(apply_step: Apply) -> None:
    """Cast to float, a Resize with its scales, a Shape and a Range: whole numbers and fixed types in between."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "front"], ["u"], "unsqueeze"),
        helper.make_node("Resize", ["u", "", "scales"], ["r"], "resize", mode="nearest"),
        helper.make_node("Resize", ["r", "", "halves"], ["q"], "resize_back", mode="nearest"),
        helper.make_node("Squeeze", ["q", "front"], ["s"], "squeeze"),
        helper.make_node("Greater", ["s", "threshold"], ["b"], "greater"),
        helper.make_node("Cast", ["b"], ["c"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Add", ["s", "c"], ["a"], "add"),
    ]
    applied = apply_step(
        make_chain(
            *nodes,
            front=np.array([0, 1]),
            scales=np.array([1, 1, 1, 2], np.float32),
            halves=np.array([1, 1, 1, 0.5], np.float32),
            threshold=np.array(0, np.float32),
        ),
        "quantize.float16",
    )
    assert applied.after.array("scales").dtype == np.float32
    assert noise(applied) > 50


def test_a_layer_left_out_stays_float32(make_mlp: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_mlp(), "quantize.float16:exclude=fc1")
    assert applied.after.array("fc1.weight").dtype == np.float32
    assert applied.after.array("fc2.weight").dtype == np.float16
    assert noise(applied) > 50


def test_a_quantized_model_is_refused(make_mlp: Builder, apply_step: Apply) -> None:
    quantized = apply_step(make_mlp(), "quantize.dynamic").after.proto()
    with pytest.raises(SlimlineError) as caught:
        apply_step(quantized, "quantize.float16")
    assert caught.value.failure.code == "ALREADY_QUANTIZED"


def test_a_layer_whose_weights_would_vanish_stays_float32(apply_step: Apply) -> None:
    small = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32) * np.float32(1e-9)
    turned = [
        helper.make_node("Transpose", ["small"], ["turned"], "turn"),
        helper.make_node("MatMul", ["x", "turned"], ["m"], "shrink"),
        helper.make_node("Div", ["m", "tiny"], ["d"], "grow"),
    ]
    applied = apply_step(make_chain(*turned, small=small, tiny=np.array(1e-9, np.float32)), "quantize.float16")
    assert applied.after.array("small").dtype == np.float32
    assert applied.reasons() == {"shrink": "100% of 'small' is too small for float16"}
    assert noise(applied) > 50


def test_a_few_vanishing_weights_do_not_matter(apply_step: Apply) -> None:
    weights = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    weights[0, 0] = 1e-12
    wide = [helper.make_node("MatMul", ["x", "wide"], ["m"], "widen"), helper.make_node("MatMul", ["m", "back"], ["d"])]
    applied = apply_step(make_chain(*wide, wide=weights, back=weights.T.copy()), "quantize.float16")
    assert applied.after.array("wide").dtype == np.float16
    assert not applied.reasons()


@pytest.mark.parametrize("keeps", [True, False])
def test_values_too_large_at_the_border_of_a_body(keeps: bool, apply_step: Apply) -> None:
    """What an If gives is float16 only where it fits: here a branch multiplies by 1e6, or by 2."""
    factor = np.array(1e6 if keeps else 2, np.float32)
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["x", f"{name}_by"], [f"{name}_y"], f"{name}_mul")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["batch", 4])],
            [numpy_helper.from_array(factor, f"{name}_by")],
        )
        for name in ("then", "else")
    ]
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], "top", keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["c"], "compare"),
        helper.make_node("If", ["c"], ["b"], "choose", then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Div", ["b", "by"], ["d"], "undo"),
    ]
    applied = apply_step(make_chain(*nodes, zero=np.array(0, np.float32), by=factor), "quantize.float16")
    border = next(node for node in applied.after.nodes() if node.op_type == "If").outputs[0]
    assert border.dtype.name == ("FLOAT" if keeps else "FLOAT16")
    assert noise(applied) > 50


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ScatterND", ["x3", "at", "update"], ["a"], "island", reduction="add"),
        helper.make_node("MeanVarianceNormalization", ["x3"], ["a"], "island", axes=[2]),
    ],
    ids=lambda node: node.op_type,
)
def test_operators_without_a_kernel_stay_float32(node: onnx.NodeProto, apply_step: Apply) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "front"], ["x3"], "unsqueeze"),
        node,
        helper.make_node("Squeeze", ["a", "front"], ["s"], "squeeze"),
    ]
    initializers = {"front": np.array([0]), "at": np.array([[0, 0, 1]]), "update": np.array([2], np.float32)}
    used = {name: array for name, array in initializers.items() if name == "front" or name in node.input}
    applied = apply_step(make_chain(*nodes, **used), "quantize.float16")
    assert any("island" in note and "ONNX Runtime runs no" in note for note in applied.record.notes)
    assert noise(applied) > 50


def test_sums_inside_a_node_may_exceed_the_range(apply_step: Apply) -> None:
    """The mean of squares of 200 values of 300 fits, their sum does not: ONNX Runtime adds in float32."""
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["b"], "grow"),
        helper.make_node("Expand", ["b", "many"], ["e"], "repeat"),
        helper.make_node("ReduceL2", ["e", "axis"], ["r"], "norm"),
        helper.make_node("Div", ["b", "r"], ["d"], "divide"),
    ]
    constants = {"large": np.array(100, np.float32), "many": np.array([500, 1, 4]), "axis": np.array([0])}
    nodes.append(helper.make_node("Squeeze", ["d", "axis"], ["s"], "squeeze"))
    applied = apply_step(make_chain(*nodes, **constants), "quantize.float16")
    assert not any("kept in float32" in note for note in applied.record.notes)
    assert noise(applied) > 45


def test_the_record_tells_what_each_layer_does_to_the_output(make_cnn: Builder, apply_step: Apply) -> None:
    records = apply_step(make_cnn(), "quantize.float16").record.layers
    assert sum(record.error_share for record in records) == pytest.approx(1)
    assert all(record.output_sqnr_db > 60 and record.sqnr_db > 60 for record in records)
    assert {(record.bits, record.activation_bits) for record in records} == {(16, 16)}
