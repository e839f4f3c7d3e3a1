"""Uploads and jobs through the real engine, in real children."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from app.contracts.failure import FaultKind
from app.contracts.states import IngestState, JobState
from app.db.migrate import upgrade
from app.settings import Settings
from app.storage import open_store
from worker.forkserver import ForkServer
from worker.tasks import Tasks


@pytest.fixture(scope="module")
def engine_server() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite only: what differs between databases is tested without the engine."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    upgrade(url)
    return url


@pytest.fixture
def tasks(settings: Settings, engine_server: ForkServer) -> Iterator[Tasks]:
    opened = Tasks(settings, engine_server)
    yield opened
    opened.close()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """x [batch, 16] -> 256 hidden -> y [batch, 4]."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"], "first"),
        helper.make_node("Relu", ["hidden"], ["rectified"], "relu"),
        helper.make_node("MatMul", ["rectified", "second"], ["y"], "second"),
    ]
    weights = {"first": (16, 256), "second": (256, 4)}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name) for name, size in weights.items()],
    )
    path = tmp_path / "network.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    path = tmp_path / "samples.npz"
    np.savez(path, x=rng.normal(size=(64, 16)).astype(np.float32), y=rng.integers(0, 4, 64))
    return path


def test_an_upload_becomes_a_measured_artifact(
    tasks: Tasks, bench: Any, network: Path, samples: Path, tmp_path: Path
) -> None:
    model, dataset = bench.upload(network), bench.upload(samples)
    tasks.ingest_model(model)
    tasks.ingest_dataset(dataset)
    row = bench.find(model)
    assert (row.state, row.facts.parameters, row.format) == (IngestState.READY, 16 * 256 + 256 * 4, "onnx")
    assert row.facts.layers[0].methods["prune.magnitude"].applies
    assert (bench.find(dataset).state, bench.find(dataset).facts.samples) == (IngestState.READY, 64)

    job = bench.submit(
        model,
        recipe=[{"method": "prune.magnitude", "amount": 0.5}, {"method": "quantize.dynamic"}],
        data={"evaluate": dataset},
        targets={"max_size_ratio": 0.9},
    )
    tasks.run_job(job)
    done = bench.find(job)
    assert done.state == JobState.SUCCEEDED, done.failure
    assert done.verdict.clauses[0].target == "max_size_ratio"
    [artifact] = bench.artifacts(job)
    open_store(bench.settings).fetch(artifact.sha256, tmp_path / "artifact.onnx")
    outputs = ort.InferenceSession(tmp_path / "artifact.onnx").run(None, {"x": np.zeros((3, 16), np.float32)})
    assert outputs[0].shape == (3, 4)
    assert bench.workspaces() == []


def test_what_is_no_model_is_rejected(tasks: Tasks, bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "novel.onnx"
    path.write_text("It was a dark and stormy night." * 100)
    model = bench.upload(path)
    tasks.ingest_model(model)
    row = bench.find(model)
    assert (row.state, row.problem.kind) == (IngestState.REJECTED, FaultKind.USER)
    assert row.problem.hint
    assert str(bench.settings.workspaces) not in row.problem.model_dump_json()


def test_a_bomb_is_rejected(tasks: Tasks, bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "zeros.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x/0.png", "w", force_zip64=True) as member,
    ):
        for _ in range(200):
            member.write(bytes(1024**2))
    dataset = bench.upload(path)
    tasks.ingest_dataset(dataset)
    row = bench.find(dataset)
    assert (row.state, row.problem.kind) == (IngestState.REJECTED, FaultKind.USER)


def test_a_job_on_unfit_data_fails_with_the_reason(tasks: Tasks, bench: Any, network: Path, tmp_path: Path) -> None:
    path = tmp_path / "unfit.npz"
    np.savez(path, x=np.zeros((8, 5), np.float32), y=np.zeros(8, np.int64))
    model, dataset = bench.upload(network), bench.upload(path)
    tasks.ingest_model(model)
    tasks.ingest_dataset(dataset)
    job = bench.submit(model, data={"evaluate": dataset})
    tasks.run_job(job)
    row = bench.find(job)
    assert (row.state, row.failure.kind) == (JobState.FAILED, FaultKind.USER)
    assert row.failure.code.startswith("DATA_")
