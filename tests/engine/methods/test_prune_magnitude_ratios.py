"""`ratios` of `prune.magnitude`: shares of single layers, by name or glob."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from app.contracts.recipe.notation import parse_recipe

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def shares(applied: Any) -> dict[str, float]:
    return {layer.name: float((applied.after.array(layer.weight) == 0).mean()) for layer in applied.after.layers()}


def test_the_first_pattern_that_matches_counts(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), 'prune.magnitude:amount=0.5,ratios={"conv2":0,"conv3":0.75,"conv*":0.25}')
    assert shares(applied) == pytest.approx({"conv1": 0.25, "conv2": 0, "conv3": 0.75, "fc": 0.5}, abs=0.01)
    assert applied.reasons() == {"conv2": "`ratios` leaves it alone"}


def test_without_an_amount_the_others_are_left_alone(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), "prune.magnitude:ratios.fc=0.5")
    assert shares(applied) == {"conv1": 0, "conv2": 0, "conv3": 0, "fc": 0.5}
    assert set(applied.reasons().values()) == {"`ratios` does not name it, and no `amount` is given"}


def test_a_ratio_is_no_part_of_the_global_threshold(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), 'prune.magnitude:amount=0.5,scope=global,restore=false,ratios={"conv1":0.9}')
    without = apply_step(make_cnn(), "prune.magnitude:amount=0.5,scope=global,restore=false,exclude=conv1")
    for name in ("conv2.weight", "conv3.weight", "fc.weight"):
        assert np.array_equal(applied.after.array(name), without.after.array(name))
    assert shares(applied)["conv1"] == pytest.approx(0.9, abs=0.01)


def test_a_share_of_zero_holds_a_tied_weight(make_attention: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_attention(), 'prune.magnitude:amount=0.5,ratios={"embed":0}')
    assert np.array_equal(applied.after.array("embedding"), applied.before.array("embedding"))
    assert applied.reasons()["logits"] == "embed, which the step leaves alone, reads the same weights"
    tied = apply_step(make_attention(), "prune.magnitude:amount=0.5,include=logits")
    assert (tied.after.array("embedding") == 0).mean() == 0.5
    assert any(note.startswith("embed reads the same weights") for note in tied.record.notes)


def test_weights_that_the_model_gives_out_stay(apply_step: Apply) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["m"], "given"),
                helper.make_node("MatMul", ["m", "v"], ["y"], "b"),
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, 4])
                for name, first in (("y", "batch"), ("w", 4))
            ],
            [numpy_helper.from_array(weight, name) for name in ("w", "v")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    applied = apply_step(model, "prune.magnitude:amount=0.5")
    assert applied.reasons() == {"given": "its weights are an output of the model"}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("prune.magnitude", ["`amount`", "required"]),
        ("prune.magnitude:amount=0", ["`amount`", "greater than 0"]),
        ("prune.magnitude:amount=1", ["`amount`", "less than 1"]),
        ('prune.magnitude:ratios={"conv*":1}', ["`ratios.conv*`", "less than 1"]),
        ('prune.magnitude:ratios={"conv*":-0.1}', ["`ratios.conv*`", "greater than or equal to 0"]),
        ("prune.magnitude:ratios={}", ["`amount`", "required"]),
        ("prune.magnitude:ratios=0.5", ["`ratios`", "dictionary"]),
    ],
)
def test_shares_out_of_range_are_refused(recipe: str, words: list[str]) -> None:
    with pytest.raises(SlimlineError) as caught:
        parse_recipe(recipe)
    assert caught.value.failure.code == "OPTION_INVALID"
    assert all(word in caught.value.failure.message for word in words), caught.value.failure.message


@pytest.mark.parametrize(
    ("recipe", "code", "words"),
    [
        ('prune.magnitude:amount=0.5,ratios={"layer9.*":0.1}', "LAYER_UNKNOWN", "layer9.*"),
        ('prune.magnitude:ratios={"*":0}', "NOTHING_TO_PRUNE", "`ratios` leaves it alone"),
        ("prune.magnitude:amount=0.001", "NOTHING_TO_PRUNE", "no chosen layer loses a single weight"),
    ],
)
def test_what_would_change_nothing_is_refused(
    make_cnn: Builder, apply_step: Apply, recipe: str, code: str, words: str
) -> None:
    with pytest.raises(SlimlineError) as caught:
        apply_step(make_cnn(), recipe)
    assert caught.value.failure.code == code
    assert words in caught.value.failure.message


def test_one_threshold_over_weights_of_several_types(make_mlp: Builder, apply_step: Apply) -> None:
    mixed = apply_step(make_mlp(), "quantize.float16:include=fc1,keep_io=true").after.proto()
    mixed = apply_step(mixed, "quantize.bfloat16:include=fc2").after.proto()
    applied = apply_step(mixed, "prune.magnitude:amount=0.5,scope=global")
    arrays = [applied.after.array(layer.weight) for layer in applied.after.layers()]
    assert len({array.dtype for array in arrays}) == 2
    assert sum(int((array == 0).sum()) for array in arrays) == round(0.5 * sum(array.size for array in arrays))
