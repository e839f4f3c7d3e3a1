"""Soft pruning: the shapes of one shot, units at zero before they go, and more accuracy for the same training."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from app.contracts.failure import SlimlineError
from app.contracts.recipe.notation import parse_recipe
from app.contracts.recipe.prune_soft import PruneSoft
from worker.engine.session import open_session, run_session

Builder = Callable[..., onnx.ModelProto]
Learn = Callable[..., Any]
KillAfter = Callable[[int], Any]

OPTIONS = {"epochs": 4, "batch_size": 32, "learning_rate": 0.003}
TRAIN = json.dumps(OPTIONS)


def top1(applied: Any) -> float:
    session = open_session(applied.after.proto().SerializeToString())
    hits = [run_session(session, batch.feed)[0].argmax(1) == batch.labels for batch in applied.samples.batches()]
    return float(np.concatenate(hits).mean())


@pytest.fixture
def trained(make_cnn: Builder, learn_step: Learn) -> onnx.ModelProto:
    """A tiny CNN that has learnt its task."""
    applied = learn_step(make_cnn(channels=16), "train:epochs=6,batch_size=32,learning_rate=0.01")
    model: onnx.ModelProto = applied.after.proto()
    return model


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load_from_string(model.SerializeToString())


@pytest.mark.parametrize("options", ["amount=0.5", 'target={"macs":0.4},round_to=1', "amount=0.5,strength=0.5"])
def test_it_leaves_the_shapes_of_one_shot_and_removal_changes_nothing(
    make_cnn: Builder, learn_step: Learn, options: str
) -> None:
    once = learn_step(make_cnn(channels=16), f"prune.structured:{options.replace(',strength=0.5', '')}")
    soft = learn_step(make_cnn(channels=16), f"prune.soft:{options},train={TRAIN}")
    for layer in once.after.layers():
        assert soft.after.array(layer.weight.name).shape == once.after.array(layer.weight.name).shape
    for wanted, record in zip(once.record.layers, soft.record.layers, strict=True):
        assert (record.layer, record.done, record.reason) == (wanted.layer, wanted.done, wanted.reason)
        assert (record.shape_before, record.shape_after) == (wanted.shape_before, wanted.shape_after)
    changed = next(note for note in soft.record.notes if note.startswith("removing them changed the outputs"))
    assert "nothing" in changed or float(changed.split()[-2]) < -100


def test_it_loses_less_than_one_shot_with_the_same_training(trained: onnx.ModelProto, learn_step: Learn) -> None:
    once = learn_step(copy_of(trained), "prune.structured:amount=0.75")
    fine_tuned = learn_step(once.after.proto(), "train:epochs=10,batch_size=32,learning_rate=0.003")
    training = json.dumps({**OPTIONS, "epochs": 10})
    soft = learn_step(copy_of(trained), f"prune.soft:amount=0.75,train={training}")
    assert top1(soft) >= top1(fine_tuned)


def test_what_goes_has_shrunk_before(make_cnn: Builder, learn_step: Learn) -> None:
    soft = learn_step(make_cnn(channels=16), 'prune.soft:amount=0.5,until=0.5,train={"steps":100,"batch_size":32}')
    note = next(note for note in soft.record.notes if "of the norm was left" in note)
    assert float(note.split("at most ")[1].split("%")[0]) <= 2


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("strength", ["", ",strength=0.3"])
def test_a_killed_job_ends_with_the_same_bytes(
    make_cnn: Builder, learn_step: Learn, killed_after: KillAfter, strength: str, after: int
) -> None:
    recipe = f"prune.soft:amount=0.5,train={TRAIN}{strength}"
    undisturbed = learn_step(make_cnn(), recipe)
    checkpoints = killed_after(after)
    with pytest.raises(checkpoints.error):
        learn_step(make_cnn(), recipe, checkpoints=checkpoints)
    again = learn_step(make_cnn(), recipe, checkpoints=checkpoints)
    graphs = [each.after.proto().SerializeToString(deterministic=True) for each in (again, undisturbed)]
    assert graphs[0] == graphs[1]
    assert again.record == undisturbed.record


def test_layers_left_out_stay_as_they_are(make_cnn: Builder, learn_step: Learn) -> None:
    soft = learn_step(make_cnn(channels=16), f"prune.soft:amount=0.5,include=conv3,train={TRAIN}")
    for name in ("conv1.weight", "conv2.weight", "conv2.bias", "fc.bias"):
        assert np.array_equal(soft.after.array(name), soft.before.array(name))
    assert soft.after.array("conv3.weight").shape[0] == 16


def test_a_scale_of_batch_normalization_is_asked_for_where_there_is_none(make_cnn: Builder, learn_step: Learn) -> None:
    with pytest.raises(SlimlineError) as caught:
        learn_step(make_cnn(), f"prune.soft:amount=0.5,penalty=bn_scale,train={TRAIN}")
    assert caught.value.failure.code == "NOTHING_TO_SCORE"


def test_what_makes_no_sense_is_refused() -> None:
    (step,) = parse_recipe("prune.soft:amount=0.5")
    assert [role.value for role in step.needs] == ["train"]
    for options in ({}, {"amount": 0.5, "train": {"ema": 0.9}}, {"amount": 0.5, "train": {"patience": 2}}):
        with pytest.raises(ValidationError):
            PruneSoft.model_validate(options)
