"""Iterative pruning: what is gone in the end is what one shot takes, and a killed job ends with the same bytes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from app.contracts.events import EngineEvent, Trained
from app.contracts.failure import SlimlineError
from app.contracts.recipe.notation import parse_recipe
from app.contracts.recipe.prune_structured import PruneStructured

Builder = Callable[..., onnx.ModelProto]
Learn = Callable[..., Any]
KillAfter = Callable[[int], Any]

SCHEDULE = 'schedule={"steps":3,"train":{"epochs":1,"batch_size":64,"learning_rate":0.003}}'
PRUNERS = {
    "prune.magnitude": "prune.magnitude:amount=0.7",
    "prune.nm": "prune.nm:n=1",
    "prune.structured": "prune.structured:amount=0.5",
}


def to_bytes(applied: Any) -> bytes:
    data: bytes = applied.after.proto().SerializeToString(deterministic=True)
    return data


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_as_much_is_gone_as_in_one_shot(make_cnn: Builder, learn_step: Learn, pruner: str) -> None:
    events: list[EngineEvent] = []
    once = learn_step(make_cnn(channels=16), pruner)
    rounds = learn_step(make_cnn(channels=16), f"{pruner},{SCHEDULE}", events=events)
    for layer in once.after.layers():
        expected, got = (each.after.array(layer.weight.name) for each in (once, rounds))
        assert got.shape == expected.shape
        assert (got == 0).sum() == (expected == 0).sum()
        assert not np.array_equal(got, expected), "nothing was learnt"
    for wanted, record in zip(once.record.layers, rounds.record.layers, strict=True):
        assert (record.layer, record.done, record.sparsity) == (wanted.layer, wanted.done, wanted.sparsity)
        assert (record.shape_before, record.shape_after) == (wanted.shape_before, wanted.shape_after)
        assert record.sqnr_db is None or record.sqnr_db < wanted.sqnr_db + 3
    told = [event.round for event in events if isinstance(event, Trained)]
    assert told == [1, 1, 2, 2, 3, 3]
    assert any(note.startswith("round 3 of 3: ") for note in rounds.record.notes)


@pytest.mark.parametrize("target", [{"macs": 0.4}, {"parameters": 0.3}])
@pytest.mark.parametrize("curve", ["linear", "exponential"])
def test_targets_are_reached_with_the_shapes_of_one_shot(
    make_cnn: Builder, learn_step: Learn, target: dict[str, float], curve: str
) -> None:
    options = f'target={{"{next(iter(target))}":{next(iter(target.values()))}}},round_to=1'
    schedule = f'schedule={{"steps":2,"curve":"{curve}","train":{{"steps":2}}}}'
    once = learn_step(make_cnn(channels=16), f"prune.structured:{options}")
    rounds = learn_step(make_cnn(channels=16), f"prune.structured:{options},{schedule}")
    shapes = [[each.after.array(layer.weight.name).shape for layer in once.after.layers()] for each in (once, rounds)]
    assert shapes[0] == shapes[1]


def test_the_learning_rate_falls_in_the_last_round_alone(make_cnn: Builder, learn_step: Learn) -> None:
    events: list[EngineEvent] = []
    learn_step(make_cnn(), f"prune.magnitude:amount=0.5,{SCHEDULE}", events=events)
    ends = [event.learning_rate for event in events if isinstance(event, Trained) and event.updates]
    assert ends[:2] == [0.003, 0.003]
    assert ends[2] < 0.0015


def test_zeros_of_a_round_are_zeros_of_the_next(make_cnn: Builder, learn_step: Learn, killed_after: KillAfter) -> None:
    checkpoints = killed_after(1)
    with pytest.raises(killed_after(0).error):
        learn_step(make_cnn(channels=16), f"{PRUNERS['prune.magnitude']},{SCHEDULE}", checkpoints=checkpoints)
    first = onnx.load_from_string(checkpoints.state["graph"])
    last = learn_step(make_cnn(channels=16), f"{PRUNERS['prune.magnitude']},{SCHEDULE}")
    for tensor in first.graph.initializer:
        early, late = onnx.numpy_helper.to_array(tensor), last.after.array(tensor.name)
        if early.ndim > 1:
            assert 0 < (early == 0).sum() < (late == 0).sum()
            assert (late[early == 0] == 0).all()


@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_a_killed_job_ends_with_the_same_bytes(
    make_cnn: Builder, learn_step: Learn, killed_after: KillAfter, pruner: str, after: int
) -> None:
    recipe = f'{pruner},schedule={{"steps":2,"train":{{"epochs":2,"batch_size":64}}}}'
    undisturbed = learn_step(make_cnn(channels=8), recipe)
    checkpoints = killed_after(after)
    with pytest.raises(type(checkpoints).error):
        learn_step(make_cnn(channels=8), recipe, checkpoints=checkpoints)
    again = learn_step(make_cnn(channels=8), recipe, checkpoints=checkpoints)
    assert to_bytes(again) == to_bytes(undisturbed)
    assert again.record.layers == undisturbed.record.layers
    assert again.record.notes == undisturbed.record.notes


def test_a_share_too_small_is_refused_before_anything_is_trained(make_cnn: Builder, learn_step: Learn) -> None:
    events: list[EngineEvent] = []
    with pytest.raises(SlimlineError, match="loses a single channel"):
        learn_step(make_cnn(channels=4), f"prune.structured:amount=0.01,{SCHEDULE}", events=events)
    assert not events


def test_only_chosen_layers_learn(make_cnn: Builder, learn_step: Learn) -> None:
    applied = learn_step(make_cnn(channels=16), f"prune.magnitude:amount=0.5,include=conv3,{SCHEDULE}")
    for name in ("conv1.weight", "conv2.weight", "fc.weight"):
        assert np.array_equal(applied.after.array(name), applied.before.array(name))
    assert not np.array_equal(applied.after.array("conv3.weight"), applied.before.array("conv3.weight"))


def test_rounds_need_training_data_and_pruned_weights_stay_pruned() -> None:
    (step,) = parse_recipe(f"prune.structured:amount=0.5,{SCHEDULE}")
    assert [role.value for role in step.needs] == ["train"]
    assert not PruneStructured(amount=0.5).needs
    for train in ({"keep_zeros": False}, {"distill": {"student": {"width": 0.5}}}):
        with pytest.raises(ValidationError):
            PruneStructured.model_validate({"amount": 0.5, "schedule": {"steps": 2, "train": train}})
