"""`quantize.dynamic`: what becomes integer, what stays and why, and that ONNX Runtime fuses it."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.weights import count_weights
from worker.engine.measure.kernels import count_kernels
from worker.engine.quantization.dynamic.activations import quantize_dynamically
from worker.engine.quantization.saturation import saturates
from worker.engine.session import open_session
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.torch_graph import TorchGraph

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def operators(graph: Graph) -> set[str]:
    return {node.op_type for node in graph.nodes()}


def test_matrix_products_fuse_into_one_kernel_each(make_mlp: Builder, apply_step: Apply, tmp_path: Any) -> None:
    applied = apply_step(make_mlp(), "quantize.dynamic")
    applied.after.save(tmp_path / "out.onnx")
    kernels = count_kernels(tmp_path / "out.onnx")
    assert kernels.operators["DynamicQuantizeMatMul"] == 2
    assert (kernels.integer, kernels.float) == (2, 0)
    assert applied.after.array("fc1.weight_quantized").dtype == np.int8
    assert "fc1.weight" not in {value.name for value in applied.after.initializers()}


def test_per_channel_is_closer_than_per_tensor(make_mlp: Builder, apply_step: Apply) -> None:
    model = make_mlp()
    for initializer in model.graph.initializer:
        if initializer.name == "fc1.weight":  # one column a hundred times the others
            array = numpy_helper.to_array(initializer).copy()
            array[:, 0] *= 100
            initializer.CopyFrom(numpy_helper.from_array(array, "fc1.weight"))
    found = [
        apply_step(model, f"quantize.dynamic:weights.per_channel={flag}").record.layers[0].sqnr_db
        for flag in ("true", "false")
    ]
    assert found[0] > found[1]
    noise = [
        sqnr_db(*(np.concatenate(side) for side in apply_step(model, recipe).outputs()))
        for recipe in ("quantize.dynamic", "quantize.dynamic:weights.per_channel=false")
    ]
    assert noise[0] > noise[1]


def test_lstm_of_both_directions(make_lstm: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_lstm(), "quantize.dynamic")
    assert "DynamicQuantizeLSTM" in operators(applied.after)
    assert applied.after.array("lstm.W_quantized").shape == (2, 6, 32)
    assert applied.after.array("lstm.W_scale").shape == (2, 32)
    assert sqnr_db(*(np.concatenate(side) for side in applied.outputs())) > 30


def test_weights_in_the_bodies_of_an_if(make_if_model: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_if_model(), "quantize.dynamic")
    assert all(record.done for record in applied.record.layers)
    assert {value.dtype.name for value in applied.after.initializers() if "quantized" in value.name} == {"INT8"}


def test_convolutions_only_when_asked(make_cnn: Builder, apply_step: Apply) -> None:
    default = apply_step(make_cnn(), "quantize.dynamic")
    assert set(default.reasons()) == {"conv1", "conv2", "conv3"}
    asked = apply_step(make_cnn(), "quantize.dynamic:convolutions=true")
    assert not asked.reasons()
    assert "ConvInteger" in operators(asked.after)
    assert sqnr_db(*(np.concatenate(side) for side in asked.outputs())) > 25
    assert any("slower" in note for note in asked.record.notes)


def make_tied(vocabulary: int = 40, width: int = 16) -> onnx.ModelProto:
    """tokens [batch, 3] -> table -> logits over the same table [batch, 3, vocabulary]."""
    table = np.random.default_rng(0).normal(size=(vocabulary, width)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["e"], "embed"),
        helper.make_node("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["e", "turned"], ["y"], "logits"),
    ]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", 3])]
    return make_model(nodes, inputs, ["batch", 3, vocabulary], table=table)


def make_model(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], shape: list[Any], **weights: np.ndarray
) -> onnx.ModelProto:
    """A model of `nodes` with one output y."""
    graph = helper.make_graph(
        nodes,
        "tested",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def floats(*shape: Any) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(1).normal(size=shape) * scale).astype(np.float32)


def noise(applied: Any) -> float:
    return sqnr_db(*(np.concatenate([each.ravel() for each in side]) for side in applied.outputs())) or np.inf


def test_a_table_that_two_layers_share_is_stored_once(apply_step: Apply) -> None:
    applied = apply_step(make_tied(), "quantize.dynamic")
    stored = {value.name: applied.after.array(value).shape for value in applied.after.initializers()}
    assert [shape for name, shape in stored.items() if "quantized" in name] == [(40, 16)]
    assert "table" not in stored
    kernels = {record.layer: record.integer_kernel for record in applied.record.layers}
    assert kernels == {"embed": False, "logits": True}
    assert noise(applied) > 35


@pytest.mark.parametrize("left_out", ["embed", "logits"])
def test_a_layer_left_out_reads_the_shared_table_as_floats(left_out: str, apply_step: Apply) -> None:
    applied = apply_step(make_tied(), f"quantize.dynamic:exclude={left_out}")
    assert count_weights(applied.after).bits == 40 * 16 * 8
    assert noise(applied) > 35


def test_one_matrix_read_in_both_orders_has_one_scale_for_all(apply_step: Apply) -> None:
    """Tied weights of an autoencoder: what is a column for one layer is a row for the other."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "encode"),
        helper.make_node("Gemm", ["h", "w"], ["y"], "decode", transB=1, alpha=0.5),
    ]
    applied = apply_step(make_model(nodes, floats("batch", 24), ["batch", 24], w=normal(24, 16)), "quantize.dynamic")
    assert count_weights(applied.after).bits == 24 * 16 * 8
    assert {tuple(applied.after.array(name).shape) for name in ("w_scale", "w_scale_2")} == {()}
    assert noise(applied) > 35


def test_a_stack_of_matrices_has_a_scale_for_each_channel_of_each(apply_step: Apply, tmp_path: Any) -> None:
    stack = normal(3, 16, 8) * np.array([1, 10, 100], np.float32)[:, None, None]
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"], "heads")], floats(3, 5, 16), [3, 5, 8], w=stack)
    applied = apply_step(model, "quantize.dynamic")
    assert applied.after.array("w_scale").shape == (3, 1, 8)
    before, after = (np.stack(side) for side in applied.outputs())
    assert min(sqnr_db(before[:, i], after[:, i]) or 0 for i in range(3)) > 35
    applied.after.save(tmp_path / "out.onnx")
    assert count_kernels(tmp_path / "out.onnx").operators == {"DynamicQuantizeMatMul": 1}


@pytest.mark.parametrize("options", [{}, {"unidirectional": 1}, {"scale": 0.3}])
def test_attention_with_a_packed_weight(options: dict[str, Any], apply_step: Apply) -> None:
    node = helper.make_node(
        "Attention", ["x", "w", "b"], ["y"], "attend", domain="com.microsoft", num_heads=2, **options
    )
    model = make_model([node], floats("batch", 6, 16), ["batch", 6, 16], w=normal(16, 48, scale=0.3), b=normal(48))
    applied = apply_step(model, "quantize.dynamic")
    assert operators(applied.after) == {"DynamicQuantizeLinear", "QAttention"}
    assert applied.after.array("w_scale").shape == (48,)
    assert count_weights(applied.after).bits == 16 * 48 * 8 + 48 * 32
    assert applied.after.layers()[0].op == "QAttention"
    assert noise(applied) > 30
    batch = next(applied.samples.batches())
    expected = open_session(applied.after.proto().SerializeToString()).run(None, batch.feed)[0]
    with torch.no_grad():
        got = TorchGraph(applied.after)(torch.from_numpy(batch.feed["x"]))[0]
    assert (sqnr_db(expected, got.numpy()) or np.inf) > 60


def test_an_attention_that_the_kernel_does_not_know_stays(apply_step: Apply) -> None:
    node = helper.make_node(
        "Attention", ["x", "w", "b"], ["a"], "attend", domain="com.microsoft", num_heads=2,
        qkv_hidden_sizes=[16, 16, 8],
    )  # fmt: skip
    product = helper.make_node("MatMul", ["a", "v"], ["y"], "out")
    weights = {"w": normal(16, 40), "b": normal(40), "v": normal(8, 64)}
    applied = apply_step(
        make_model([node, product], floats("batch", 6, 16), ["batch", 6, 64], **weights), "quantize.dynamic"
    )
    assert applied.reasons() == {"attend": "the integer kernel does not know qkv_hidden_sizes"}


def test_onnx_attention_has_no_weights_and_stays(apply_step: Apply) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], "project"),
        helper.make_node("Attention", ["q", "q", "q"], ["y"], "attend", q_num_heads=2, kv_num_heads=2),
    ]
    model = make_model(nodes, floats("batch", 6, 16), ["batch", 6, 32], w=normal(16, 32, scale=0.3))
    model.opset_import[0].version = 23
    applied = apply_step(model, "quantize.dynamic")
    assert [record.layer for record in applied.record.layers] == ["project"]
    assert noise(applied) > 25


def test_weights_that_are_not_finite_stay(make_mlp: Builder, apply_step: Apply) -> None:
    model = make_mlp()
    for initializer in model.graph.initializer:
        if initializer.name == "fc1.weight":
            array = numpy_helper.to_array(initializer).copy()
            array[0, 0] = np.inf
            initializer.CopyFrom(numpy_helper.from_array(array, "fc1.weight"))
    applied = apply_step(model, "quantize.dynamic:include=fc*")
    assert applied.reasons() == {"fc1": "its weights hold NaN or infinity"}


def test_the_record_tells_what_each_layer_does_to_the_output(make_mlp: Builder, apply_step: Apply) -> None:
    records = apply_step(make_mlp(), "quantize.dynamic").record.layers
    assert sum(record.error_share for record in records) == pytest.approx(1)
    assert all(record.output_sqnr_db > 25 for record in records)
    assert {(record.bits, record.activation_bits, record.integer_kernel) for record in records} == {(8, 8, True)}


def test_dynamic_ranges_are_those_of_the_operator() -> None:
    values = torch.from_numpy(normal(7, 9) + 0.3)
    model = make_model([helper.make_node("DynamicQuantizeLinear", ["x"], ["c", "s", "z"])], floats(7, 9), [])
    for name, kind in (("c", TensorProto.UINT8), ("s", TensorProto.FLOAT), ("z", TensorProto.UINT8)):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    del model.graph.output[0]
    for each in (values, values.abs() + 1, -values.abs(), torch.zeros(3)):
        codes, scale, zero = ReferenceEvaluator(model).run(None, {"x": each.numpy()})
        expected = (codes.astype(np.float32) - zero.astype(np.float32)) * (scale or 1)
        np.testing.assert_allclose(quantize_dynamically(each).numpy(), expected, atol=1e-6)


def test_products_of_codes_are_exact_where_the_cpu_can_add_them_in_32_bits() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if platform.machine() != "x86_64" or "flags" not in flags:
        pytest.skip("which instructions an x86 CPU has is read from Linux")
    assert saturates() == ("vnni" not in flags)


def test_twice_is_refused(make_mlp: Builder, apply_step: Apply) -> None:
    once = apply_step(make_mlp(), "quantize.dynamic").after.proto()
    with pytest.raises(SlimlineError) as caught:
        apply_step(once, "quantize.dynamic")
    assert caught.value.failure.code == "ALREADY_QUANTIZED"
    assert caught.value.failure.node
