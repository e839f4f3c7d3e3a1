"""The search for the best static quantization: repairs that help are kept, others not, and both are told of."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def decibels(applied: Any) -> float:
    """SQNR of the outputs, dB."""
    before, after = (np.concatenate(side) for side in applied.outputs())
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


def spoil(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Scale channels of the first convolution up and those of the next down: the same function, uneven ranges."""
    arrays = {each.name: numpy_helper.to_array(each).copy() for each in model.graph.initializer}
    factors = np.where(np.arange(8) % 2, factor, 1 / factor).astype(np.float32)
    arrays["conv1.weight"] *= factors[:, None, None, None]
    arrays["conv1.bias"] *= factors
    arrays["conv2.weight"] /= factors[:, None, None, None]
    for each in model.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(arrays[each.name], each.name))
    return model


@pytest.fixture
def spoiled(make_cnn: Builder) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(make_cnn())
    return spoil(copy, 100)


def test_equalization_is_kept_where_ranges_are_uneven(spoiled: onnx.ModelProto, apply_step: Apply) -> None:
    repaired = apply_step(spoiled, "quantize.static")
    plain = apply_step(spoiled, "quantize.static:repairs=[]")
    assert decibels(repaired) > decibels(plain) + 6
    repairs = {each.name: each for each in repaired.record.layers[0].repairs}
    assert repairs["cross-layer equalization"].kept
    assert repairs["cross-layer equalization"].gain_db > 6
    assert not any(each.kept for each in plain.record.layers[0].repairs)


def test_what_is_kept_helped_and_what_is_not_did_not(make_cnn: Builder, apply_step: Apply) -> None:
    repairs = apply_step(make_cnn(), "quantize.static").record.layers[0].repairs
    assert {"percentile ranges", "mse ranges", "entropy ranges", "weight range search", "bias correction"} <= {
        each.name for each in repairs
    }
    assert all(each.gain_db > 0 for each in repairs if each.kept)


def test_accuracy_leaves_the_layer_in_float_that_loses_most(make_cnn: Builder, apply_step: Apply) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(make_cnn())
    for each in model.graph.initializer:
        if each.name == "conv3.weight":
            array = numpy_helper.to_array(each).copy()
            array[:, 0] *= 3000  # one input channel takes all the steps of a scale, and Relu makes it zero
            each.CopyFrom(numpy_helper.from_array(array, each.name))
        if each.name == "conv2.bias":
            array = numpy_helper.to_array(each).copy()
            array[0] = -1e4
            each.CopyFrom(numpy_helper.from_array(array, each.name))
    recipe = 'quantize.static:repairs=["reversion"],preset='
    balanced, accurate = (apply_step(model, recipe + preset) for preset in ("speed", "accuracy"))
    assert balanced.reasons() == {}
    assert accurate.reasons()["conv3"].startswith("left in float: that brings")
    assert decibels(accurate) > decibels(balanced) + 10


def test_every_layer_is_told_of_in_full(make_cnn: Builder, apply_step: Apply) -> None:
    layers = apply_step(make_cnn(), "quantize.static").record.layers
    assert [each.bits for each in layers] == [8] * 4
    assert [each.activation_bits for each in layers] == [8] * 4
    assert all(each.integer_kernel for each in layers)
    assert all(each.range[0] <= 0 < each.range[1] for each in layers)
    assert all(each.output_sqnr_db > 20 and each.sqnr_db > 20 for each in layers)
    assert sum(each.error_share for each in layers) == pytest.approx(1)


def equalized(record: Any) -> bool:
    """Whether equalization was kept."""
    repairs = next(each for each in record.layers if each.done).repairs
    return any(each.kept for each in repairs if each.name == "cross-layer equalization")


def test_layers_left_out_keep_their_weights_while_others_are_repaired(
    spoiled: onnx.ModelProto, apply_step: Apply
) -> None:
    applied = apply_step(spoiled, "quantize.static:exclude=conv3")
    assert (applied.after.array("conv3.weight") == applied.before.array("conv3.weight")).all()
    assert equalized(applied.record)
    assert not equalized(apply_step(spoiled, "quantize.static:exclude=conv2").record)


def test_one_scale_for_a_weight_is_kept_where_it_costs_little(
    make_cnn: Builder, spoiled: onnx.ModelProto, apply_step: Apply
) -> None:
    even = onnx.ModelProto()
    even.CopyFrom(make_cnn())
    for each in even.graph.initializer:
        if each.name.endswith("weight"):
            array = np.sign(numpy_helper.to_array(each)).astype(np.float32) / 4
            each.CopyFrom(numpy_helper.from_array(array, each.name))
    for model, is_kept in ((even, True), (spoiled, False)):
        (tried,) = apply_step(model, "quantize.static:repairs=[]").record.layers[0].repairs
        assert (tried.name, tried.kept) == ("one scale for each weight", is_kept)
        assert (tried.gain_db > -1) is is_kept
    asked = apply_step(even, "quantize.static:repairs=[],weights.per_channel=true")
    assert not asked.record.layers[0].repairs
