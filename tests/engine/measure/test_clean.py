"""The clean process: it loads, runs and measures two models, and says what is wrong with one that does not run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from app.contracts.failure import FaultKind, SlimlineError
from worker.engine.graph import Graph
from worker.engine.measure.clean import DataFile, Request, measure_cleanly
from worker.engine.samples import Guess

Builder = Callable[..., onnx.ModelProto]


def make_request(model: onnx.ModelProto, folder: Path, **changes: object) -> Request:
    """The model against itself with every weight rounded to two decimals."""
    onnx.save(model, folder / "original.onnx")
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if array.dtype == np.float32:
            initializer.CopyFrom(numpy_helper.from_array(array.round(2), initializer.name))
    onnx.save(model, folder / "compressed.onnx")
    fields = {
        "original": folder / "original.onnx",
        "compressed": folder / "compressed.onnx",
        "inputs": Graph.load(folder / "original.onnx").inputs,
        "source": Guess(size=8, highest=2, seed=0),
        "task": None,
        "device": "cpu",
        "latency_s": 0.05,
    }
    return Request.model_validate(fields | changes)


def test_both_models_are_run_and_measured(make_cnn: Builder, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = {"x": generator.normal(size=(30, 3, 8, 8)).astype(np.float32), "y": generator.integers(0, 4, 30)}
    np.savez(tmp_path / "data.npz", allow_pickle=False, **samples)
    done: list[int] = []
    request = make_request(make_cnn(), tmp_path, source=DataFile(path=tmp_path / "data.npz"))
    answer = measure_cleanly(request, done.append)
    for side in (answer.original, answer.compressed):
        assert side.accuracy is not None
        assert side.accuracy.n == 30
        assert 0 < side.latency.p50 <= side.latency.p90
        assert (side.latency.batch, side.latency.threads) == (1, 1)
        assert side.peak_memory_bytes is None or side.peak_memory_bytes > 0
    assert answer.fidelity is not None
    assert answer.fidelity.sqnr_db is not None
    assert answer.fidelity.sqnr_db > 20
    assert done[-1] == 30


def test_made_up_inputs_say_so(make_attention: Builder, tmp_path: Path) -> None:
    answer = measure_cleanly(make_request(make_attention(), tmp_path), lambda _: None)
    assert answer.original.accuracy is None
    assert any("made up" in note for note in answer.notes)
    assert any("accuracy was not measured" in note for note in answer.notes)


def test_a_model_that_does_not_load_is_told(make_mlp: Builder, tmp_path: Path) -> None:
    request = make_request(make_mlp(), tmp_path)
    (tmp_path / "compressed.onnx").write_bytes(b"no model")
    with pytest.raises(SlimlineError) as caught:
        measure_cleanly(request, lambda _: None)
    assert caught.value.failure.code == "MODEL_DOES_NOT_LOAD"


def measuring() -> list[psutil.Process]:
    """The clean processes that run."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if "worker.engine.measure" in child.cmdline()]


def kill_measuring() -> None:
    """Kill the clean process, as the kernel may."""
    for process in measuring():
        process.kill()


def test_one_that_is_killed_is_worth_another_try(make_cnn: Builder, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError) as caught:
        measure_cleanly(make_request(make_cnn(), tmp_path, latency_s=60), lambda _: kill_measuring())
    assert (caught.value.failure.code, caught.value.failure.kind) == ("WORKER_LOST", FaultKind.TRANSIENT)
    assert measuring() == []


@pytest.mark.parametrize(
    ("does", "code"),
    [
        ("exec <&-; kill -9 $$", "WORKER_LOST"),
        ("printf '{\"samples\": '; kill -9 $$", "WORKER_LOST"),
        ("kill -11 $$", "ARTIFACT_CRASHED"),
        ("exit 3", "ARTIFACT_CRASHED"),
    ],
)
def test_how_it_died_is_told(
    make_mlp: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, code: str
) -> None:
    program = tmp_path / "dying"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    with pytest.raises(SlimlineError) as caught:
        measure_cleanly(make_request(make_mlp(), tmp_path), lambda _: None)
    assert caught.value.failure.code == code


def test_a_fixed_batch_is_filled_up_and_not_counted(make_cnn: Builder, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = {"x": generator.normal(size=(10, 3, 8, 8)).astype(np.float32), "y": generator.integers(0, 4, 10)}
    np.savez(tmp_path / "data.npz", allow_pickle=False, **samples)
    request = make_request(make_cnn(batch=4), tmp_path, source=DataFile(path=tmp_path / "data.npz"))
    answer = measure_cleanly(request, lambda _: None)
    assert answer.original.accuracy is not None
    assert answer.original.accuracy.n == 10
    assert answer.original.latency.batch == 4
