"""The step `train` in recipes: what it learns from, what it leaves alone, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.contracts.events import EngineEvent, Trained
from app.contracts.failure import SlimlineError
from worker.engine import Graph, compress
from worker.engine.stages.job import Result

Builder = Callable[..., onnx.ModelProto]
Compress = Callable[..., Result]
SAMPLES, CLASSES = 300, 4
FAST = {"method": "train", "epochs": 8, "learning_rate": 0.01}


def make_data(path: Path, seed: int, **changes: Any) -> Path:
    """Noise in which one of the three channels is brighter, or none: which one is the label."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, SAMPLES)
    x = rng.standard_normal((SAMPLES, 3, 8, 8)).astype(np.float32)
    for image, label in zip(x, y, strict=True):
        image[label : label + 1] += 0.7
    arrays = {name: array for name, array in {"x": x, "y": y, **changes}.items() if array is not None}
    np.savez(path, allow_pickle=False, **arrays)
    return path


@pytest.fixture
def run(make_cnn: Builder, tmp_path: Path) -> Compress:
    """Compress the untrained network with training and evaluation data; `data` changes arrays of the former."""
    model = tmp_path / "net.onnx"
    onnx.save(make_cnn(), model)

    def run(*recipe: dict[str, Any], data: dict[str, Any] | None = None, **more: Any) -> Result:
        given = {
            "train": make_data(tmp_path / "train.npz", 0, **(data or {})),
            "evaluate": make_data(tmp_path / "evaluate.npz", 1),
            "output": tmp_path / "out.onnx",
        }
        return compress(more.pop("model", model), recipe=list(recipe), **{**given, **more})

    return run


def accuracy(result: Result) -> float:
    assert result.comparison.final is not None
    assert result.comparison.final.accuracy is not None
    return result.comparison.final.accuracy.value


def refusal(run: Compress, *recipe: dict[str, Any], **more: Any) -> SlimlineError:
    with pytest.raises(SlimlineError) as caught:
        run(*recipe, **more)
    assert caught.value.failure.kind == "user"
    return caught.value


def test_it_learns_from_labels_and_tells_the_curve_and_the_layers(run: Compress) -> None:
    events = list[EngineEvent]()
    result = run(FAST, on_event=events.append)
    assert accuracy(result) > 0.85
    points = [event for event in events if isinstance(event, Trained)]
    assert [point.epoch for point in points] == list(range(9))
    assert {layer.layer: layer.done for layer in result.layers} == dict.fromkeys(
        ["conv1", "conv2", "conv3", "fc"], True
    )
    assert all(layer.sqnr_db is not None for layer in result.layers)


def test_it_learns_from_a_teacher_without_labels(run: Compress, tmp_path: Path) -> None:
    run(FAST, output=tmp_path / "teacher.onnx")
    distill = {"teacher": str(tmp_path / "teacher.onnx"), "loss": "soft"}
    taught = run({**FAST, "epochs": 20, "distill": distill}, data={"y": None}, task="classification")
    assert accuracy(taught) > 0.85


def test_quantized_it_learns_integers(run: Compress, tmp_path: Path) -> None:
    run(FAST, output=tmp_path / "float.onnx")
    four_bits = {"method": "quantize.static", "weights": {"bits": 4}}
    result = run(four_bits, {**FAST, "learning_rate": 1e-3}, model=tmp_path / "float.onnx")
    before, after = (step.accuracy.value for step in result.comparison.steps)
    assert after >= before - 0.02
    assert result.comparison.steps[1].weight_bits == result.comparison.steps[0].weight_bits < 8


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_it_learns_in_mixed_precision(run: Compress, amp: str) -> None:
    assert accuracy(run({**FAST, "amp": amp})) > 0.8


def test_it_learns_numbers(make_mlp: Builder, run: Compress, tmp_path: Path) -> None:
    onnx.save(make_mlp(classes=2), tmp_path / "mlp.onnx")
    x = np.random.default_rng(0).standard_normal((SAMPLES, 16)).astype(np.float32)
    y = np.stack([x[:, 0] - x[:, 1], x[:, 2] * 2 + 0.5], 1)
    np.savez(tmp_path / "numbers.npz", x=x, y=y)
    data = dict.fromkeys(("train", "evaluate"), tmp_path / "numbers.npz")
    result = run({**FAST, "epochs": 20}, model=tmp_path / "mlp.onnx", task="regression", **data)
    assert result.comparison.final.accuracy.metric == "r2"
    assert accuracy(result) > 0.9


def test_another_model_takes_its_place_even_a_quantized_one(run: Compress, tmp_path: Path) -> None:
    run({"method": "quantize.static"}, output=tmp_path / "int8.onnx")
    step = {**FAST, "distill": {"student": {"model": str(tmp_path / "int8.onnx")}, "loss": {"hard": 1}}}
    result = run(step)
    assert accuracy(result) > 0.8
    assert result.comparison.final.weight_bits < 16


def test_an_earlier_step_teaches(run: Compress) -> None:
    pruned = {"method": "prune.structured", "amount": 0.5}
    result = run(FAST, pruned, {**FAST, "distill": {"teacher": 0}})
    trained, cut, taught = (step.accuracy.value for step in result.comparison.steps)
    assert taught > cut
    assert trained > 0.85


def test_a_student_is_made_thinner(run: Compress) -> None:
    result = run({**FAST, "distill": {"student": {"width": 0.5}, "loss": {"hard": 1}}})
    assert result.comparison.ratios.parameters < 0.6


@pytest.mark.parametrize(("option", "moved"), [({"include": ["fc"]}, {"fc"}), ({"exclude": ["conv*"]}, {"fc"})])
def test_layers_left_out_stay(run: Compress, tmp_path: Path, option: dict[str, Any], moved: set[str]) -> None:
    result = run({**FAST, **option})
    assert {layer.layer for layer in result.layers if layer.done} == moved
    before, after = Graph.load(tmp_path / "net.onnx"), Graph.load(tmp_path / "out.onnx")
    for layer in ("conv1", "conv2", "conv3", "fc"):
        for part in (f"{layer}.weight", f"{layer}.bias"):
            assert np.array_equal(before.array(part), after.array(part)) == (layer not in moved)


def test_pruned_weights_stay_zero_through_all_that_follows(run: Compress) -> None:
    result = run({"method": "prune.magnitude", "amount": 0.6}, FAST, {"method": "quantize.static"}, FAST)
    shares = [row.nonzero / row.parameters for row in result.comparison.steps]
    assert shares[1] == pytest.approx(shares[0])
    assert shares[3] <= shares[2] + 0.01


BAD = {
    "no labels": (FAST, {"y": None}, "LABELS_MISSING"),
    "labels out of range": (FAST, {"y": np.arange(SAMPLES) % 9}, "LABELS_OUT_OF_RANGE"),
    "one class only": (FAST, {"y": np.zeros(SAMPLES, np.int64)}, "ONE_CLASS_ONLY"),
    "no number": (FAST, {"x": np.full((SAMPLES, 3, 8, 8), np.nan, np.float32)}, "DATA_NOT_FINITE"),
    "no time": ({"method": "train", "seconds": 1e-6}, {}, "TIME_BUDGET_TOO_SMALL"),
    "its own teacher": ({**FAST, "distill": {"teacher": 0}}, {}, "TEACHER_NOT_EARLIER"),
    "a teacher that is not there": ({**FAST, "distill": {"teacher": "nobody.onnx"}}, {}, "MODEL_UNKNOWN"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=list(BAD))
def test_bad_input_is_refused_by_name(run: Compress, case: tuple[Any, Any, str]) -> None:
    step, data, code = case
    failure = refusal(run, step, data=data).failure
    assert failure.code == code
    assert failure.hint


def test_no_training_data_is_refused_before_any_work(run: Compress) -> None:
    failure = refusal(run, FAST, train=None).failure
    assert (failure.code, failure.step) == ("TRAINING_DATA_MISSING", 0)


def test_a_teacher_of_other_outputs_is_refused(run: Compress, make_cnn: Builder, tmp_path: Path) -> None:
    onnx.save(make_cnn(classes=7), tmp_path / "other.onnx")
    failure = refusal(run, {**FAST, "distill": {"teacher": str(tmp_path / "other.onnx")}}).failure
    assert failure.code == "TEACHER_MISMATCH"


def test_integer_products_have_nothing_to_train(run: Compress) -> None:
    failure = refusal(run, {"method": "quantize.dynamic", "convolutions": True}, FAST).failure
    assert failure.code == "NOTHING_TO_TRAIN"
