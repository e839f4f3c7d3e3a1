"""What calibration data brings after weights became zero: outputs come closer, zeros and other layers stay."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from worker.engine.tensors.similarity import sqnr_db

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]

PRUNERS = ("prune.magnitude:amount=0.5", "prune.nm")


def faithfulness(applied: Any) -> float:
    expected, got = map(np.concatenate, applied.outputs())
    noise = sqnr_db(expected, got)
    assert noise is not None
    return noise


@pytest.mark.parametrize("pruner", PRUNERS)
def test_outputs_come_closer_and_zeros_stay(make_cnn: Builder, apply_step: Apply, pruner: str) -> None:
    options = "" if ":" in pruner else ":"
    plain = apply_step(make_cnn(channels=16), f"{pruner}{options or ','}restore=false")
    restored = apply_step(make_cnn(channels=16), pruner)
    assert faithfulness(restored) > faithfulness(plain) + 1
    for before, after in zip(plain.after.layers(), restored.after.layers(), strict=True):
        is_zero = plain.after.array(before.weight) == 0
        assert np.array_equal(is_zero, restored.after.array(after.weight) == 0)
    assert any("restored on calibration data" in note for note in restored.record.notes)
    assert not any("restored" in note for note in plain.record.notes)


@pytest.mark.parametrize("pruner", ["prune.magnitude:amount=0.5,include=conv3", "prune.nm:include=conv3"])
def test_layers_left_out_stay_as_they_are(make_cnn: Builder, apply_step: Apply, pruner: str) -> None:
    applied = apply_step(make_cnn(), pruner)
    assert any("restored on calibration data" in note for note in applied.record.notes)
    for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc.weight", "fc.bias"):
        assert np.array_equal(applied.after.array(name), applied.before.array(name))
