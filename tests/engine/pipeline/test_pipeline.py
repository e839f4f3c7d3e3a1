"""A job from end to end on a tiny model: what is told, what is measured, what is refused before any work."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.contracts.events import ENGINE_EVENT, Checkpoint, EngineEvent, Failed, Finished, Measured, Progress
from app.contracts.failure import FaultKind, SlimlineError
from app.contracts.recipe import DataRole
from app.contracts.targets import Targets
from worker.engine.graph import Graph
from worker.engine.measure.clean import DataFile
from worker.engine.methods import find_method
from worker.engine.pipeline import run
from worker.engine.session import open_session, run_session
from worker.engine.stages.job import Job
from worker.engine.tensors.similarity import sqnr_db

MakeJob = Callable[..., Job]
TWO_STEPS = "prune.magnitude:amount=0.3 + quantize.static"


def run_and_listen(job: Job) -> tuple[Finished, list[EngineEvent]]:
    events: list[EngineEvent] = []
    return run(job, events.append), events


def of_kind(events: list[EngineEvent], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_everything_is_told_in_order(make_job: MakeJob) -> None:
    job = make_job(TWO_STEPS, targets=Targets(max_size_ratio=0.9, max_accuracy_drop=0.0))
    finished, events = run_and_listen(job)
    assert all(ENGINE_EVENT.validate_json(event.model_dump_json()) == event for event in events)
    fractions = [event.fraction for event in of_kind(events, Progress)]
    assert fractions == sorted(fractions)
    assert {event.phase for event in of_kind(events, Progress)} >= {"load", "compress", "export", "verify", "measure"}
    assert [event.step for event in of_kind(events, Checkpoint)] == [0, 1]
    rows = {(event.role, event.step): event.row for event in of_kind(events, Measured)}
    assert list(rows) == [("original", None), ("step", 0), ("step", 1), ("final", None)]
    assert events[-1] is finished
    assert [(record.step, record.layer) for record in finished.layers] == [
        (step, layer) for step in (0, 1) for layer in ("conv1", "conv2", "conv3", "fc")
    ]
    assert finished.verdict is not None
    assert {clause.target for clause in finished.verdict.clauses} == {"max_size_ratio", "max_accuracy_drop"}


def test_the_rows_hold_what_the_files_show(make_job: MakeJob, data_file: Path) -> None:
    job = make_job(TWO_STEPS)
    finished, events = run_and_listen(job)
    rows = {event.role: event.row for event in of_kind(events, Measured)}
    original, final = rows["original"], rows["final"]
    assert original.size_bytes == job.model.stat().st_size
    assert final.size_bytes == job.output.stat().st_size == finished.artifacts[0].size_bytes
    assert finished.artifacts[0].sha256 == hashlib.sha256(job.output.read_bytes()).hexdigest()
    assert finished.artifacts[0].path == "artifact.onnx"
    assert finished.artifacts[0].filename == "cnn-compressed.onnx"
    assert original.accuracy.value == 1
    data = np.load(data_file)
    got = run_session(open_session(job.output), {"x": data["x"]})[0].argmax(1)
    assert final.accuracy.value == (got == data["y"]).mean() == final.fidelity.agreement
    assert final.parameters == original.parameters
    assert final.nonzero < original.nonzero
    assert 8 <= final.weight_bits < 10  # scales count too
    assert original.weight_bits == 32
    assert final.latency_ms.runs == original.latency_ms.runs >= 10
    assert original.macs == final.macs is not None


def test_a_step_between_is_measured_too(make_job: MakeJob) -> None:
    _, events = run_and_listen(make_job(TWO_STEPS))
    row = next(event.row for event in of_kind(events, Measured) if event.role == "step" and event.step == 0)
    assert row.accuracy is not None
    assert row.fidelity is not None
    assert row.latency_ms is None
    assert any("latency" in note for note in row.notes)


def test_same_job_same_bytes_and_the_recipe_inside(make_job: MakeJob) -> None:
    first, second = make_job(TWO_STEPS), make_job(TWO_STEPS)
    run_and_listen(first)
    run_and_listen(second)
    assert first.output.read_bytes() == second.output.read_bytes()
    properties = {each.key: each.value for each in onnx.load(first.output).metadata_props}
    assert [step["method"] for step in json.loads(properties["slimline.recipe"])] == [
        "prune.magnitude",
        "quantize.static",
    ]


@pytest.mark.parametrize("done", [0, 1])
def test_a_retry_goes_on_from_a_checkpoint(make_job: MakeJob, done: int) -> None:
    job = make_job(TWO_STEPS)
    whole, events = run_and_listen(job)
    checkpoint = job.workspace / of_kind(events, Checkpoint)[done].path
    retry = make_job(TWO_STEPS, resume_from=(done, checkpoint))
    resumed, again = run_and_listen(retry)
    assert retry.output.read_bytes() == job.output.read_bytes()
    assert [event.step for event in of_kind(again, Checkpoint)] == list(range(done + 1, 2))
    assert resumed.layers == whole.layers
    assert resumed.notes == whole.notes


def test_no_data_at_all(make_job: MakeJob) -> None:
    finished, events = run_and_listen(make_job("prune.magnitude:amount=0.5", data={}))
    final = of_kind(events, Measured)[-1].row
    assert final.accuracy is None
    assert final.fidelity is not None
    assert any("made up" in note for note in final.notes)
    assert finished.verdict is None


def test_labels_of_calibration_data_give_no_accuracy(make_job: MakeJob, data_file: Path) -> None:
    job = make_job("quantize.static", data={DataRole.CALIBRATE: DataFile(path=data_file)})
    _, events = run_and_listen(job)
    final = of_kind(events, Measured)[-1].row
    assert final.accuracy is None
    assert any("calibrate data" in note for note in final.notes)


def test_static_quantization_without_data_says_what_it_was_calibrated_on(make_job: MakeJob) -> None:
    finished, events = run_and_listen(make_job("quantize.static", data={}))
    assert any("no data was given" in note and "quantize.static" in note for note in finished.notes)
    fidelity = of_kind(events, Measured)[-1].row.fidelity
    assert fidelity.sqnr_db is None or fidelity.sqnr_db > 20


@pytest.mark.parametrize(
    ("changes", "code", "kind"),
    [
        ({"device": "cuda"}, "DEVICE_UNAVAILABLE", FaultKind.USER),
        ({"data": {}, "targets": Targets(min_accuracy=0.5)}, "LABELS_MISSING", FaultKind.USER),
    ],
)
def test_what_cannot_work_is_refused_before_any_step(
    make_job: MakeJob, changes: dict[str, Any], code: str, kind: FaultKind
) -> None:
    events: list[EngineEvent] = []
    if code == "DEVICE_UNAVAILABLE" and "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(SlimlineError) as caught:
        run(make_job("quantize.static", **changes), events.append)
    assert (caught.value.failure.code, caught.value.failure.kind) == (code, kind)
    assert events[-1] == Failed(failure=caught.value.failure)
    assert not of_kind(events, Checkpoint)


def test_a_target_on_accuracy_needs_labels(make_job: MakeJob, data_file: Path) -> None:
    data = {DataRole.CALIBRATE: DataFile(path=data_file)}
    with pytest.raises(SlimlineError) as caught:
        run(make_job("quantize.static", data=data, targets=Targets(min_accuracy=0.5)), lambda _: None)
    assert caught.value.failure.code == "LABELS_MISSING"


def test_data_of_another_shape_is_refused(make_job: MakeJob, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", allow_pickle=False, x=np.zeros((4, 3, 9, 9), np.float32))
    data = {DataRole.CALIBRATE: DataFile(path=tmp_path / "wide.npz")}
    with pytest.raises(SlimlineError) as caught:
        run(make_job("quantize.static", data=data), lambda _: None)
    assert caught.value.failure.code == "DATA_SHAPE_MISMATCH"


def test_a_refusal_names_its_step(make_job: MakeJob) -> None:
    with pytest.raises(SlimlineError) as caught:
        run(make_job("prune.magnitude:amount=0.3 + quantize.dynamic:include=nothing"), lambda _: None)
    assert (caught.value.failure.code, caught.value.failure.step) == ("LAYER_UNKNOWN", 1)


def test_inputs_and_outputs_may_become_float16(make_job: MakeJob, data_file: Path) -> None:
    """And so may those of a graph that a later step still changes."""
    job = make_job("quantize.float16:keep_io=false,include=conv1 + quantize.static:exclude=conv1")
    finished, events = run_and_listen(job)
    graph = Graph.load(job.output)
    assert [spec.dtype for spec in graph.inputs] == ["float16"]
    x = np.load(data_file)["x"]
    expected = run_session(open_session(job.model), {"x": x})[0]
    got = run_session(open_session(job.output), {"x": x.astype(np.float16)})[0]
    final = of_kind(events, Measured)[-1].row
    assert final.fidelity.sqnr_db == pytest.approx(sqnr_db(expected, got), abs=0.1)
    assert final.fidelity.sqnr_db > 25
    assert [record.bits for record in finished.layers if record.done] == [16, 8, 8, 8]


def test_a_model_of_float16_alone(make_job: MakeJob) -> None:
    job = make_job("quantize.float16:keep_io=false")
    _, events = run_and_listen(job)
    graph = Graph.load(job.output)
    assert [spec.dtype for spec in (*graph.inputs, *graph.outputs)] == ["float16", "float16"]
    final = of_kind(events, Measured)[-1].row
    assert final.fidelity.sqnr_db > 50
    assert final.accuracy.metric == "top1"
    assert final.latency_ms is not None


@pytest.mark.parametrize(
    ("task", "label_shape", "told"),
    [("segmentation", (64,), "needs label maps [N, ...]"), ("classification", (64, 8, 8), "needs labels [N]")],
)
def test_labels_of_another_task_are_refused_before_any_step(
    make_job: MakeJob, data_file: Path, task: str, label_shape: tuple[int, ...], told: str
) -> None:
    other = data_file.with_name("other.npz")
    np.savez(other, allow_pickle=False, x=np.load(data_file)["x"], y=np.zeros(label_shape, np.int64))
    job = make_job("prune.magnitude:amount=0.5", task=task, data={DataRole.EVALUATE: DataFile(path=other)})
    events: list[EngineEvent] = []
    with pytest.raises(SlimlineError) as caught:
        run(job, events.append)
    assert (caught.value.failure.code, caught.value.failure.kind) == ("LABELS_DO_NOT_FIT", FaultKind.USER)
    assert told in caught.value.failure.message
    assert {event.phase for event in of_kind(events, Progress)} == {"load"}


@pytest.mark.parametrize("second", ["quantize.dynamic", "quantize.float16"])
def test_a_second_quantization_is_refused_before_any_work(make_job: MakeJob, second: str) -> None:
    events: list[EngineEvent] = []
    with pytest.raises(SlimlineError) as caught:
        run(make_job(f"quantize.static + prune.magnitude:amount=0.5 + {second}"), events.append)
    failure = caught.value.failure
    assert (failure.code, failure.step) == ("ALREADY_QUANTIZED", 2)
    assert "step 1 (quantize.static) makes integers" in failure.message
    assert events == [Failed(failure=failure)]


def test_a_step_that_breaks_the_graph_is_our_fault(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted defect: the method loses input channels of a convolution."""

    def shrink(graph: Graph, *_: object) -> Graph:
        broken = graph.clone()
        broken.set_array("conv3.weight", broken.array("conv3.weight")[:, :5])
        return broken

    monkeypatch.setattr(find_method("prune.magnitude"), "apply", shrink)
    with pytest.raises(SlimlineError) as caught:
        run(make_job("prune.magnitude:amount=0.3"), lambda _: None)
    failure = caught.value.failure
    assert (failure.code, failure.kind, failure.step) == ("STEP_BROKE_GRAPH", FaultKind.OURS, 0)
    assert failure.node == "conv3"


def test_a_step_that_makes_nan_is_our_fault(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(graph: Graph, *_: object) -> Graph:
        broken = graph.clone()
        broken.set_array("conv3.bias", np.full(16, np.nan, np.float32))
        return broken

    monkeypatch.setattr(find_method("prune.magnitude"), "apply", spoil)
    with pytest.raises(SlimlineError) as caught:
        run(make_job("prune.magnitude:amount=0.3"), lambda _: None)
    assert caught.value.failure.code == "STEP_BROKE_GRAPH"
    assert "NaN" in caught.value.failure.message


def test_a_recipe_that_asks_for_speed_is_judged_by_it(make_job: MakeJob) -> None:
    finished, events = run_and_listen(make_job("quantize.static:preset=speed"))
    rows = {event.role: event.row for event in of_kind(events, Measured)}
    ratio = rows["final"].latency_ms.p50 / rows["original"].latency_ms.p50
    assert finished.verdict is not None
    (clause,) = finished.verdict.clauses
    assert (clause.target, clause.limit, clause.measured) == ("max_latency_ratio", 1.0, pytest.approx(ratio))
    assert finished.verdict.met is (ratio <= 1)
