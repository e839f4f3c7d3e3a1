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
