"""`quantize.mixed`: budgets of size, fidelity and latency, kept for real where they can be kept, and told of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from app.contracts.recipe.notation import parse_recipe
from worker.engine.graph import Graph
from worker.engine.graph.files import size_of_weights
from worker.engine.measure.kernels import count_kernels

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]
STEP = "quantize.mixed:calibrator=minmax"
"""The search for ranges is tested with `quantize.static`."""


def decibels(applied: Any) -> float:
    """SQNR of the outputs on the samples, dB."""
    before, after = (np.concatenate(side).astype(np.float64) for side in applied.outputs())
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


def ratio(applied: Any) -> float:
    """Bytes of the weights after and before."""
    return size_of_weights(applied.after.model) / size_of_weights(applied.before.model)


def bits(applied: Any) -> dict[str, float | None]:
    """Of each layer; None where it was skipped."""
    return {each.layer: each.bits if each.done else None for each in applied.record.layers}


@pytest.fixture
def model(make_cnn: Builder) -> onnx.ModelProto:
    return make_cnn(channels=32, classes=10)


def test_tighter_budgets_make_smaller_weights_and_more_noise(model: onnx.ModelProto, apply_step: Apply) -> None:
    budgets = [0.7, 0.35, 0.25]
    applied = [apply_step(model, f"{STEP},budget.size_ratio={each}") for each in budgets]
    ratios, noises = [ratio(each) for each in applied], [decibels(each) for each in applied]
    assert all(reached <= budget for reached, budget in zip(ratios, budgets, strict=True))
    assert ratios == sorted(ratios, reverse=True)
    assert noises == sorted(noises, reverse=True)
    assert len(set(noises)) == len(budgets)
    assert all(any("is kept" in note for note in each.record.notes) for each in applied)


def test_greed_keeps_a_budget_in_bytes(model: onnx.ModelProto, apply_step: Apply) -> None:
    applied = apply_step(model, f"{STEP},budget.size_bytes=6000,solver=greedy")
    assert size_of_weights(applied.after.model) <= 6000


def test_fidelity_is_kept_at_the_least_size(model: onnx.ModelProto, apply_step: Apply) -> None:
    budgets = [22, 30, 38]
    applied = [apply_step(model, f"{STEP},budget.sqnr_db={each}") for each in budgets]
    assert all(decibels(each) >= budget - 0.01 for each, budget in zip(applied, budgets, strict=True))
    ratios = [ratio(each) for each in applied]
    assert ratios == sorted(ratios)
    assert len(set(ratios)) == len(budgets)


def test_latency_is_measured_and_told(model: onnx.ModelProto, apply_step: Apply, tmp_path: Path) -> None:
    applied = apply_step(model, f"{STEP},budget.latency_ratio=0.01,choices=[8,32]")
    notes = applied.record.notes
    assert any("the budget latency_ratio=0.01 cannot be kept, this is what comes nearest: " in note for note in notes)
    assert any("times were measured on this machine" in note for note in notes)
    applied.after.save(tmp_path / "out.onnx")
    assert count_kernels(tmp_path / "out.onnx").integer


def test_a_size_out_of_reach_gives_the_smallest(model: onnx.ModelProto, apply_step: Apply) -> None:
    applied = apply_step(model, f"{STEP},budget.size_bytes=10")
    assert set(bits(applied).values()) == {4}
    size = size_of_weights(applied.after.model)
    assert f"the budget size_bytes=10 cannot be kept, this is what comes nearest: {size}" in applied.record.notes
    assert any("4 bits save size and cost speed" in note for note in applied.record.notes)


def test_a_fidelity_out_of_reach_gives_the_closest(model: onnx.ModelProto, apply_step: Apply) -> None:
    in_integers = apply_step(model, f"{STEP},budget.sqnr_db=150,choices=[4,8]")
    assert set(bits(in_integers).values()) == {8}
    with_floats = apply_step(model, f"{STEP},budget.sqnr_db=150")
    assert list(bits(with_floats).values()).count(None) == 3
    assert decibels(with_floats) > decibels(in_integers)
    for each in (in_integers, with_floats):
        assert any("the budget sqnr_db=150 cannot be kept" in note for note in each.record.notes)


def test_layers_left_out_stay_float(model: onnx.ModelProto, apply_step: Apply) -> None:
    applied = apply_step(model, f"{STEP},budget.size_ratio=0.01,include=conv*,exclude=conv1")
    assert applied.reasons() == {"conv1": "left out by the step", "fc": "left out by the step"}
    assert {"conv1.weight", "fc.weight"} <= {value.name for value in applied.after.initializers()}


def test_a_layer_in_float_by_choice_is_told_of(model: onnx.ModelProto, apply_step: Apply) -> None:
    applied = apply_step(model, f"{STEP},budget.size_ratio=0.7")
    floats = {name for name, each in bits(applied).items() if each is None}
    assert floats
    assert {applied.reasons()[name] for name in floats} == {"stays in float, as the budget allows"}
    done = [each for each in applied.record.layers if each.done]
    assert all(each.output_sqnr_db > 10 and each.activation_bits == 8 and each.range for each in done)
    assert sum(each.error_share for each in done) == pytest.approx(1)


def test_the_sum_of_single_errors_predicts_the_whole(model: onnx.ModelProto, apply_step: Apply) -> None:
    applied = apply_step(model, f"{STEP},budget.size_ratio=0.35")
    (note,) = (each for each in applied.record.notes if "errors of layers measured alone" in each)
    assert float(note.split()[-2]) == pytest.approx(decibels(applied), abs=3)


def test_layers_that_share_a_weight_share_its_bits(apply_step: Apply) -> None:
    generator = np.random.default_rng(0)
    shared, last = (generator.normal(0, 0.2, shape).astype(np.float32) for shape in ((64, 64), (64, 16)))
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "shared"], ["c"], "second"),
        helper.make_node("MatMul", ["c", "last"], ["y"], "third"),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(shared, "shared"), numpy_helper.from_array(last, "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for budget in (0.2, 0.5):
        applied = apply_step(model, f"{STEP},budget.size_ratio={budget}")
        found = bits(applied)
        assert found["first"] == found["second"]
        assert ratio(applied) <= budget


def test_the_opset_is_raised_for_4_bits_alone(model: onnx.ModelProto, apply_step: Apply) -> None:
    assert apply_step(model, f"{STEP},budget.size_ratio=0.35").after.opset == 21
    assert apply_step(model, f"{STEP},budget.size_ratio=0.35,choices=[8,32]").after.opset == 18


def test_layers_of_bodies_have_bits_too(make_if_model: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_if_model(features=32), f"{STEP},budget.size_ratio=0.6")
    assert isinstance(applied.after, Graph)
    assert ratio(applied) <= 0.6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("solver=milp", "budget"),
        ("budget.size_ratio=0.2,budget.sqnr_db=20", "exactly one of size_ratio, size_bytes, latency_ratio, sqnr_db"),
        ("budget.size_ratio=1.5", "less than 1"),
        ("budget.size_ratio=0.2,choices=[8]", "at least 2 items"),
        ("budget.size_ratio=0.2,choices=[8,8]", "option `choices`: value error, names the same bits twice"),
        ("budget.size_ratio=0.2,choices=[2,8]", "4, 8 or 32"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: str, told: str) -> None:
    with pytest.raises(SlimlineError) as caught:
        parse_recipe(f"quantize.mixed:{options}")
    assert caught.value.failure.code == "OPTION_INVALID"
    assert told in caught.value.failure.message
