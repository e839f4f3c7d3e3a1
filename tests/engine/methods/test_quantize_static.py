"""`quantize.static`: fused kernels, ranges from the data, and what is left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.measure.kernels import count_kernels
from worker.engine.tensors.similarity import sqnr_db

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def noise(applied: Any) -> float:
    return sqnr_db(*(np.concatenate(side) for side in applied.outputs())) or np.inf


def with_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """The tiny CNN with a BatchNormalization between its first Conv and Relu."""
    generator, norm = np.random.default_rng(3), onnx.ModelProto()
    norm.CopyFrom(model)
    names = ["bn.scale", "bn.shift", "bn.mean", "bn.variance"]
    for name in names:
        array = np.abs(generator.normal(1, 0.3, size=8)).astype(np.float32)
        norm.graph.initializer.append(numpy_helper.from_array(array, name))
    norm.graph.node.insert(1, helper.make_node("BatchNormalization", ["c1", *names], ["n1"], "bn"))
    norm.graph.node[2].input[0] = "n1"
    return norm


def test_every_layer_of_a_cnn_runs_on_integers(make_cnn: Builder, apply_step: Apply, tmp_path: Path) -> None:
    applied = apply_step(make_cnn(), "quantize.static")
    applied.after.save(tmp_path / "out.onnx")
    kernels = count_kernels(tmp_path / "out.onnx")
    assert (kernels.integer, kernels.float) == (4, 0)
    assert noise(applied) > 25
    assert any("4 integer kernels, 0 float" in note for note in applied.record.notes)


def test_weights_are_signed_and_activations_suit_the_machine(make_cnn: Builder, apply_step: Apply) -> None:
    import platform

    graph = apply_step(make_cnn(), "quantize.static").after
    assert graph.array("conv1.weight_quantized").dtype == np.int8
    assert graph.array("conv1.weight_scale").shape == (8,)
    expected = np.int8 if platform.machine().lower() in ("arm64", "aarch64") else np.uint8
    assert graph.array("x_zero_point").dtype == expected


def test_batch_norm_is_folded_first(make_cnn: Builder, apply_step: Apply, tmp_path: Path) -> None:
    applied = apply_step(with_batch_norm(make_cnn()), "quantize.static")
    assert "BatchNormalization" not in {node.op_type for node in applied.after.nodes()}
    applied.after.save(tmp_path / "out.onnx")
    assert count_kernels(tmp_path / "out.onnx").float == 0
    assert noise(applied) > 25


def test_percentiles_cut_the_range(make_cnn: Builder, apply_step: Apply) -> None:
    model = make_cnn()
    scales = [
        float(apply_step(model, f"quantize.static:calibrator={recipe}").after.array("x_scale"))
        for recipe in ("minmax", "percentile,percentile=100", "percentile,percentile=99", "percentile,percentile=90")
    ]
    assert scales[0] == pytest.approx(scales[1], rel=1e-6)
    assert scales[0] > scales[2] > scales[3]


def test_a_recurrent_layer_is_skipped_with_the_reason(make_lstm: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_lstm(), "quantize.static")
    assert "does nothing for LSTM; quantize.dynamic does it" in applied.reasons()["lstm"]


def test_layers_of_bodies_are_quantized_where_samples_reach_them(make_if_model: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_if_model(), "quantize.static")
    done = {each.layer for each in applied.record.layers if each.done}
    assert done
    assert done | applied.reasons().keys() == {layer.name for layer in applied.before.layers()}
    assert all("none of them reached it" in str(reason) for reason in applied.reasons().values())
    assert noise(applied) > 25


def test_layers_left_out_stay_float(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), "quantize.static:exclude=conv*")
    kept = {value.name for value in applied.after.initializers()}
    assert {"conv1.weight", "conv2.weight", "conv3.weight", "fc.weight_quantized"} <= kept


def test_names_outputs_and_metadata_survive(make_cnn: Builder, apply_step: Apply) -> None:
    model = make_cnn()
    model.metadata_props.add(key="author", value="someone")
    graph = apply_step(model, "quantize.static").after
    assert dict(graph.model.metadata_props) == {"author": "someone"}
    assert graph.model.producer_name == model.producer_name
    assert not graph.proto().graph.value_info
    assert [spec.name for spec in graph.outputs] == ["y"]
    assert {"conv1", "fc"} <= {node.name for node in graph.nodes()}


def test_float16_weights_are_refused_with_the_reason(make_cnn: Builder, apply_step: Apply) -> None:
    half = apply_step(make_cnn(), "quantize.float16").after.proto()
    with pytest.raises(SlimlineError) as caught:
        apply_step(half, "quantize.static")
    assert caught.value.failure.code == "NOTHING_TO_QUANTIZE"
    assert "its weights are float16: quantize the float32 model instead" in caught.value.failure.message


def test_the_commonest_reason_is_told(make_cnn: Builder, apply_step: Apply) -> None:
    with pytest.raises(SlimlineError) as caught:
        apply_step(make_cnn(), "quantize.dynamic:exclude=fc")
    assert "none of the 3 chosen layers; the reason: dynamic integer convolution" in caught.value.failure.message


def test_twice_is_refused(make_cnn: Builder, apply_step: Apply) -> None:
    once = apply_step(make_cnn(), "quantize.static").after.proto()
    with pytest.raises(SlimlineError) as caught:
        apply_step(once, "quantize.static")
    assert caught.value.failure.code == "ALREADY_QUANTIZED"


def test_what_saves_little_is_told(make_lstm: Builder, make_cnn: Builder, apply_step: Apply) -> None:
    notes = apply_step(make_lstm(), "quantize.static").record.notes
    assert any("of the weights' bytes: the file stays nearly as large" in note for note in notes)
    assert not any("nearly as large" in note for note in apply_step(make_cnn(), "quantize.static").record.notes)


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_an_artifact_for_elsewhere_has_that_runtimes_types(target: str, make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), f"quantize.static:target={target}")
    assert any(f"the artifact is made for {target}" in note for note in applied.record.notes)
    is_signed = target == "tensorrt"
    zero = applied.after.array("x_zero_point")
    assert zero.dtype == (np.int8 if is_signed else np.uint8)
    assert not is_signed or zero == 0
    assert not any(value.dtype == ir.DataType.INT32 for value in applied.after.initializers())
    assert noise(applied) > 20


@pytest.mark.parametrize(("options", "least_db"), [("weights.bits=4", 8), ("activations.bits=16", 40)])
def test_other_widths(options: str, least_db: float, make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), f"quantize.static:{options}")
    assert applied.after.opset >= 21
    (layer, *_) = applied.record.layers
    assert (layer.bits, layer.activation_bits) == ((4, 8) if "bits=4" in options else (8, 16))
    assert noise(applied) > least_db
