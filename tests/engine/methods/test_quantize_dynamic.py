"""`quantize.dynamic`: what becomes integer, what stays and why, and that ONNX Runtime fuses it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.measure.kernels import count_kernels
from worker.engine.tensors.similarity import sqnr_db

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


def test_gru_is_skipped_with_the_reason(apply_step: Apply) -> None:
    generator = np.random.default_rng(0)
    shapes = {"W": (1, 24, 6), "R": (1, 24, 8), "fc": (8, 3)}
    nodes = [
        helper.make_node("GRU", ["x", "W", "R"], ["", "h"], "gru", hidden_size=8),
        helper.make_node("Squeeze", ["h", "axis"], ["s"], "squeeze"),
        helper.make_node("MatMul", ["s", "fc"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "gru",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(generator.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
        + [numpy_helper.from_array(np.array([0]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    applied = apply_step(model, "quantize.dynamic")
    assert applied.reasons() == {"gru": "ONNX Runtime has no dynamic integer kernel for GRU"}


def test_a_shared_table_is_left_to_its_other_reader(make_attention: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_attention(), "quantize.dynamic")
    assert applied.reasons()["logits"] == "its weights are read by Gather too"
    assert sum(record.done for record in applied.record.layers) == 4


def test_twice_is_refused(make_mlp: Builder, apply_step: Apply) -> None:
    once = apply_step(make_mlp(), "quantize.dynamic").after.proto()
    with pytest.raises(SlimlineError) as caught:
        apply_step(once, "quantize.dynamic")
    assert caught.value.failure.code == "ALREADY_QUANTIZED"
    assert caught.value.failure.node
