"""`prune.nm`: n of every m along the axis that is summed over, chosen as the scores say."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from app.contracts.recipe.notation import parse_recipe
from app.contracts.recipe.step import find_missing_data
from worker.engine.graph import Graph
from worker.engine.methods import find_method
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import make_up
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import sqnr_db

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]


def one_node(op: str, weight: Sequence[int], x: Sequence[int | str], **attributes: Any) -> onnx.ModelProto:
    """x -> Mul by strengths that differ from channel to channel -> `op` with a weight of that shape -> y."""
    rng = np.random.default_rng(1)
    channel_axis = 1 if op.startswith("Conv") else -1
    strengths = rng.uniform(0.1, 4, [x[channel_axis], *[1] * (len(x) - 2)] if channel_axis == 1 else [x[-1]])
    initializers = {"strengths": strengths, "w": rng.normal(size=weight)}
    nodes = [
        helper.make_node("Mul", ["x", "strengths"], ["s"], "scale"),
        helper.make_node(op, ["s", "w"], ["y"], "layer", **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def nonzeros(array: np.ndarray, axis: int, group: int = 4) -> np.ndarray:
    """How many weights stay in each group."""
    return (np.moveaxis(array, axis, -1).reshape(-1, group) != 0).sum(1)


def inputs_of(applied: Any) -> np.ndarray:
    """All inputs x times the strengths of `one_node`, in float64."""
    x = np.concatenate([batch.feed["x"] for batch in applied.samples.batches()]).astype(np.float64)
    return x * applied.before.array("strengths").astype(np.float64)


def highest(scores: np.ndarray, axis: int) -> np.ndarray:
    """Where the 2 highest of every 4 are."""
    groups = np.moveaxis(scores, axis, -1)
    ranks = groups.reshape(*groups.shape[:-1], -1, 4).argsort(-1).argsort(-1)
    return np.moveaxis((ranks >= 2).reshape(groups.shape), -1, axis)


def test_convolutions_lose_input_channels_and_products_rows(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), "prune.nm")
    assert (nonzeros(applied.after.array("conv3.weight"), axis=1) == 2).all()
    assert (nonzeros(applied.after.array("fc.weight"), axis=1) == 2).all()
    assert applied.reasons() == {
        "conv1": "it sums over 3 input channels, no multiple of m=4",
        "conv2": "it sums over 1 input channel, no multiple of m=4",
    }
    assert [record.sparsity for record in applied.record.layers if record.done] == [0.5, 0.5]


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 4), (3, 4), (2, 8)])
def test_any_pattern_along_the_rows_of_a_product(make_mlp: Builder, apply_step: Apply, n: int, m: int) -> None:
    applied = apply_step(make_mlp(), f"prune.nm:n={n},m={m},criterion=magnitude,restore=false")
    for name in ("fc1.weight", "fc2.weight"):
        before, after = applied.before.array(name), applied.after.array(name)
        assert (nonzeros(after, axis=0, group=m) == n).all()
        kept = after != 0
        assert np.array_equal(after[kept], before[kept])
    assert any(f"not {n}:{m}" in note for note in applied.record.notes)


def test_the_largest_stay_by_magnitude(make_mlp: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_mlp(), "prune.nm:criterion=magnitude")
    expected = highest(np.abs(applied.before.array("fc1.weight")), axis=0)
    assert np.array_equal(applied.after.array("fc1.weight") != 0, expected)


@pytest.mark.parametrize(("op", "attributes"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})])
def test_wanda_weighs_the_rows_of_a_product(apply_step: Apply, op: str, attributes: Mapping[str, int]) -> None:
    axis = attributes.get("transB", 0)
    applied = apply_step(one_node(op, (8, 16) if axis else (16, 8), ["batch", 16], **attributes), "prune.nm")
    norms = np.linalg.norm(inputs_of(applied), axis=0)
    weight = applied.before.array("w").astype(np.float64)
    expected = highest(np.abs(weight) * (norms if axis else norms[:, None]), axis)
    assert np.array_equal(applied.after.array("w") != 0, expected)
    assert not np.array_equal(expected, highest(np.abs(weight), axis))


def test_wanda_weighs_the_patches_of_a_grouped_convolution(apply_step: Apply) -> None:
    options = {"group": 2, "strides": [2, 2], "pads": [1, 1, 0, 0]}
    applied = apply_step(one_node("Conv", (6, 4, 3, 3), ["batch", 8, 7, 7], **options), "prune.nm")
    padded = torch.nn.functional.pad(torch.from_numpy(inputs_of(applied)), (1, 0, 1, 0))
    patches = torch.nn.functional.unfold(padded, 3, stride=2)  # [N, 8 x 9, places]
    norms = patches.square().sum((0, 2)).sqrt().reshape(2, 4, 3, 3).numpy()
    scores = np.abs(applied.before.array("w").astype(np.float64)) * norms.repeat(3, axis=0)
    assert np.array_equal(applied.after.array("w") != 0, highest(scores, axis=1))


def test_a_transposed_convolution_is_cut_along_its_input_channels(apply_step: Apply) -> None:
    applied = apply_step(one_node("ConvTranspose", (8, 3, 2, 2), ["batch", 8, 4, 4], strides=[2, 2]), "prune.nm")
    norms = np.sqrt(np.square(inputs_of(applied)).sum((0, 2, 3)))
    scores = np.abs(applied.before.array("w").astype(np.float64)) * norms[:, None, None, None]
    assert np.array_equal(applied.after.array("w") != 0, highest(scores, axis=0))


def test_groups_of_a_transposed_convolution_are_not_crossed(apply_step: Apply) -> None:
    with pytest.raises(SlimlineError) as caught:
        apply_step(one_node("ConvTranspose", (12, 3, 2, 2), ["batch", 12, 4, 4], group=6), "prune.nm")
    assert "it sums over 2 input channels, no multiple of m=4" in caught.value.failure.message


def test_wanda_loses_less_of_the_output_than_magnitude(apply_step: Apply) -> None:
    model = one_node("MatMul", (64, 32), ["batch", 64])
    noises = []
    for criterion in ("magnitude", "wanda"):
        expected, got = map(
            np.concatenate, apply_step(model, f"prune.nm:criterion={criterion},restore=false").outputs()
        )
        noises.append(sqnr_db(expected, got))
    assert noises[1] > noises[0] + 1


def test_recurrent_weights_along_their_last_axis(make_lstm: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_lstm(features=8), "prune.nm")
    x = np.concatenate([batch.feed["x"] for batch in applied.samples.batches()]).astype(np.float64)
    scores = np.abs(applied.before.array("lstm.W")) * np.sqrt(np.square(x).sum((0, 1)))
    assert np.array_equal(applied.after.array("lstm.W") != 0, highest(scores, axis=2))
    assert np.array_equal(applied.after.array("lstm.R") != 0, highest(np.abs(applied.before.array("lstm.R")), axis=2))
    assert "by magnitude, since what they multiply cannot be watched: lstm.R" in applied.record.notes


def test_one_weight_of_a_layer_may_stay_dense(make_lstm: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_lstm(features=6), "prune.nm")
    assert np.array_equal(applied.after.array("lstm.W"), applied.before.array("lstm.W"))
    assert (nonzeros(applied.after.array("lstm.R"), axis=2) == 2).all()
    assert "lstm.W of lstm stays dense: 6 inputs, no multiple of m=4" in applied.record.notes


def test_a_tied_table_is_cut_where_it_is_multiplied(make_attention: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_attention(), "prune.nm")
    assert (nonzeros(applied.after.array("embedding"), axis=1) == 2).all()
    assert any(note.startswith("embed reads the same weights") for note in applied.record.notes)
    held = apply_step(make_attention(), "prune.nm:exclude=embed")
    assert np.array_equal(held.after.array("embedding"), held.before.array("embedding"))
    assert held.reasons()["logits"] == "embed, which the step leaves alone, reads the same weights"


def test_weights_in_the_bodies_of_an_if(make_if_model: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_if_model(), "prune.nm")
    for name in ("wide1.weight", "wide2.weight", "thin.weight"):
        assert (nonzeros(applied.after.array(name), axis=1) == 2).all()


@pytest.mark.parametrize("converter", ["quantize.float16", "quantize.bfloat16"])
def test_halves_are_pruned_too(make_mlp: Builder, apply_step: Apply, converter: str) -> None:
    converted = apply_step(make_mlp(), converter).after.proto()
    applied = apply_step(converted, "prune.nm")
    weights = [layer.weight for layer in applied.after.layers()]
    assert len(weights) == 2
    for weight in weights:
        assert (nonzeros(applied.after.array(weight).astype(np.float32), axis=0) == 2).all()
        assert applied.after.array(weight).dtype == applied.before.array(weight.name).dtype


def test_sparse_weights_are_left_as_they_are(make_mlp: Builder, apply_step: Apply) -> None:
    once = apply_step(make_mlp(), "prune.nm")
    twice = apply_step(once.after.proto(), "prune.nm")
    for name in ("fc1.weight", "fc2.weight"):
        assert np.array_equal(once.after.array(name), twice.after.array(name))


def test_without_calibration_data_magnitudes_decide(make_mlp: Builder) -> None:
    graph = Graph.from_proto(make_mlp())
    graph.infer_shapes()
    samples = make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)
    context = StepContext(Record(0, "prune.nm"), None, samples, 0, "cpu", lambda _share, _message: None)
    (step,) = parse_recipe("prune.nm")
    pruned = find_method("prune.nm").apply(graph, step, context)
    assert np.array_equal(pruned.array("fc1.weight") != 0, highest(np.abs(graph.array("fc1.weight")), axis=0))
    assert any("with calibration data the inputs have a say" in note for note in context.record.notes)


def test_wanda_without_calibration_data_is_refused_before_any_work() -> None:
    assert find_missing_data(parse_recipe("prune.nm + prune.nm:criterion=magnitude"), []) is None
    missing = find_missing_data(parse_recipe("prune.nm + prune.nm:criterion=wanda"), ["evaluate"])
    assert missing is not None
    assert (missing.step, missing.role.missing_code) == (1, "CALIBRATION_DATA_MISSING")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("prune.nm:n=4", ["`n`", "less than `m`, which is 4"]),
        ("prune.nm:n=0", ["`n`", "greater than or equal to 1"]),
        ("prune.nm:m=65", ["`m`", "less than or equal to 64"]),
        ("prune.nm:criterion=best", ["criterion", "'wanda'"]),
    ],
)
def test_options_out_of_range_are_refused(recipe: str, words: list[str]) -> None:
    with pytest.raises(SlimlineError) as caught:
        parse_recipe(recipe)
    assert caught.value.failure.code == "OPTION_INVALID"
    assert all(word in caught.value.failure.message for word in words)


def test_nothing_to_prune_says_why(make_mlp: Builder, apply_step: Apply) -> None:
    with pytest.raises(SlimlineError) as caught:
        apply_step(make_mlp(features=6, hidden=10), "prune.nm")
    failure = caught.value.failure
    assert failure.code == "NOTHING_TO_PRUNE"
    assert "works on none of the 2 chosen layers" in failure.message
    assert "multiple of m=4" in str(failure.hint)


def test_what_it_brings_is_told_and_the_file_runs(make_cnn: Builder, apply_step: Apply) -> None:
    applied = apply_step(make_cnn(), "prune.nm")
    assert any("ONNX Runtime does not run them faster" in note for note in applied.record.notes)
    assert any("sparse tensor cores" in note and "TensorRT" in note for note in applied.record.notes)
    session = open_session(applied.after.proto().SerializeToString())
    (output,) = run_session(session, applied.samples.first())
    assert np.isfinite(output).all()
