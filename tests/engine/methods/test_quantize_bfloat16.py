"""`quantize.bfloat16`: weights at half the bytes, stored once, arithmetic in float32 whatever their range."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.graph.weights import count_weights
from worker.engine.measure.kernels import count_kernels
from worker.engine.quantization.bfloat16 import to_bfloat16
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.torch_graph import TorchGraph

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def noise(applied: Any) -> float:
    return sqnr_db(*(np.concatenate(side) for side in applied.outputs())) or np.inf


def rounded(graph: Graph) -> Graph:
    """`graph` in float32 with the weights of its layers rounded by torch."""
    clone = graph.clone()
    for layer in clone.layers():
        for weight in layer.weights:
            floats = torch.from_numpy(clone.array(weight).copy()).bfloat16().float()
            clone.set_array(weight, floats.numpy())
    return clone


@pytest.mark.parametrize("name", ["make_cnn", "make_mlp", "make_lstm", "make_attention", "make_if_model"])
def test_it_computes_with_the_rounded_weights_in_float32(
    name: str, request: pytest.FixtureRequest, apply_step: Apply
) -> None:
    applied = apply_step(request.getfixturevalue(name)(), "quantize.bfloat16")
    weights = {weight.name: weight for layer in applied.before.layers() for weight in layer.weights}
    for weight in weights:
        assert applied.after.array(weight).dtype == ml_dtypes.bfloat16
    saved = sum(16 * applied.before.array(weight).size for weight in weights)
    before, after = count_weights(applied.before), count_weights(applied.after)
    assert (after.count, after.bits) == (before.count, before.bits - saved)
    feed = applied.samples.first()
    models = [graph.proto().SerializeToString() for graph in (rounded(applied.before), applied.after)]
    expected, got = (run_session(open_session(model, optimize=False), feed)[0] for model in models)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        in_torch = TorchGraph(applied.after)(*(torch.from_numpy(feed[spec.name]) for spec in applied.after.inputs))[0]
    np.testing.assert_allclose(in_torch.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert noise(applied) > 40


def test_a_tied_table_is_stored_once_and_its_rows_are_cast_alone(
    make_attention: Builder, apply_step: Apply, tmp_path: Any
) -> None:
    applied = apply_step(make_attention(), "quantize.bfloat16")
    assert applied.after.array("embedding").dtype == ml_dtypes.bfloat16
    assert sum(value.shape == (20, 16) for value in applied.after.initializers()) == 1
    readers = {use.node.op_type for use in applied.after.initializer("embedding").uses()}
    assert readers == {"Gather", "Cast"}
    applied.after.save(tmp_path / "out.onnx")
    before = count_kernels_of(applied.before, tmp_path)
    after = count_kernels(tmp_path / "out.onnx").operators
    assert after - before == {"Cast": 1}, "one for the rows; those of the weights are folded"


def count_kernels_of(graph: Graph, folder: Any) -> Any:
    graph.save(folder / "before.onnx")
    return count_kernels(folder / "before.onnx").operators


def test_rounding_is_that_of_torch_and_finite_stays_finite() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=4000) * np.exp(rng.uniform(-80, 80, size=4000))).astype(np.float32)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1e-45, 0.0], np.float32)
    values = np.concatenate([values, ties])
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(to_bfloat16(values).astype(np.float32), expected)
    special = to_bfloat16(np.array([np.inf, -np.inf, np.nan, 3.4028e38], np.float32)).astype(np.float32)
    assert special[0] == np.inf
    assert special[1] == -np.inf
    assert np.isnan(special[2])
    assert np.isfinite(special[3])


def test_weights_beyond_float16_are_no_matter(apply_step: Apply) -> None:
    w = (np.random.default_rng(0).normal(size=(4, 4)) * 1e30).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    applied = apply_step(model, "quantize.bfloat16")
    assert noise(applied) > 40


def test_a_quantized_layer_is_left_as_it_is(make_mlp: Builder, apply_step: Apply) -> None:
    once = apply_step(make_mlp(), "quantize.dynamic:include=fc1").after.proto()
    applied = apply_step(once, "quantize.bfloat16")
    assert set(applied.reasons().values()) == {"its weights are int8"}
    assert applied.after.array("fc2.weight").dtype == ml_dtypes.bfloat16
    assert noise(applied) > 40


def test_the_record_tells_what_each_layer_does_to_the_output(make_lstm: Builder, apply_step: Apply) -> None:
    records = apply_step(make_lstm(), "quantize.bfloat16").record.layers
    assert sum(record.error_share for record in records) == pytest.approx(1)
    assert all(45 < record.sqnr_db < 60 for record in records)
    assert {(record.bits, record.activation_bits) for record in records} == {(16, None)}


def test_onnx_runtime_multiplies_no_bfloat16_on_a_cpu() -> None:
    """The reason for float32 arithmetic: should this ever load, the step can do more."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match="Could not find an implementation for MatMul"):
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
