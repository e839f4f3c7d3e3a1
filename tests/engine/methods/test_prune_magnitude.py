"""`prune.magnitude`: the zeros are exact in number and in the right place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def weights(graph: Graph) -> dict[str, np.ndarray]:
    return {weight.name or "": graph.array(weight) for layer in graph.layers() for weight in layer.weights}


def test_each_layer_loses_its_share(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), "prune.magnitude:amount=0.4,restore=false")
    before, after = weights(applied.before), weights(applied.after)
    for name, array in after.items():
        assert (array == 0).sum() == round(0.4 * array.size)
        kept = array != 0
        assert np.array_equal(array[kept], before[name][kept])
        assert np.abs(before[name][~kept]).max() <= np.abs(before[name][kept]).min()
    assert [record.sparsity for record in applied.record.layers] == pytest.approx([0.4] * 4, abs=0.02)


def test_global_scope_has_one_threshold(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), "prune.magnitude:amount=0.5,scope=global")
    before = np.concatenate([array.ravel() for array in weights(applied.before).values()])
    after = np.concatenate([array.ravel() for array in weights(applied.after).values()])
    assert (after == 0).sum() == round(0.5 * after.size)
    assert np.abs(before[after == 0]).max() <= np.abs(before[after != 0]).min()


def test_biases_are_untouched_and_recurrent_weights_are_not(make_lstm: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_lstm(), "prune.magnitude:amount=0.5")
    assert np.array_equal(applied.after.array("lstm.B"), applied.before.array("lstm.B"))
    assert (applied.after.array("lstm.W") == 0).mean() == pytest.approx(0.5, abs=0.01)
    assert (applied.after.array("lstm.R") == 0).mean() == pytest.approx(0.5, abs=0.01)


def test_weights_in_the_bodies_of_an_if(make_if_model: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_if_model(), "prune.magnitude:amount=0.5")
    assert len(applied.record.layers) == 3
    assert all((array == 0).mean() == 0.5 for array in weights(applied.after).values())


def test_what_is_quantized_is_refused(make_mlp: Builder, apply_step: Apply) -> None:
    quantized = apply_step(make_mlp(), "quantize.dynamic").after.proto()
    with pytest.raises(SlimlineError) as caught:
        apply_step(quantized, "prune.magnitude:amount=0.5")
    failure = caught.value.failure
    assert failure.code == "NOTHING_TO_PRUNE"
    told = "works on none of the 2 chosen layers; the reason: its weights are quantized already: prune first"
    assert failure.message == f"prune.magnitude {told}"


def test_leaving_out_every_layer_is_told_as_that(make_cnn: Builder, apply_step: Apply) -> None:
    with pytest.raises(SlimlineError) as caught:
        apply_step(make_cnn(), 'prune.magnitude:amount=0.5,exclude=["*"]')
    assert "`include` and `exclude` leave out every layer" in caught.value.failure.message


def test_what_is_quantized_in_part_is_told(make_cnn: Builder, apply_step: Apply) -> None:
    quantized = apply_step(make_cnn(), "quantize.dynamic").after.proto()
    applied = apply_step(quantized, "prune.magnitude:amount=0.5")
    assert list(applied.reasons().values()) == ["its weights are quantized already: prune first"]
    assert any(
        "1 of 4 layers left alone; the reason: its weights are quantized" in note for note in applied.record.notes
    )
