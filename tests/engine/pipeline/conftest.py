"""Tiny models and data as files, and a job made of them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.contracts.recipe import DataRole
from app.contracts.recipe.notation import parse_recipe
from worker.engine.measure.clean import DataFile
from worker.engine.session import open_session, run_session
from worker.engine.stages.job import Job

Builder = Callable[..., onnx.ModelProto]


@pytest.fixture
def cnn_file(make_cnn: Builder, tmp_path: Path) -> Path:
    path = tmp_path / "cnn.onnx"
    onnx.save(make_cnn(), path)
    return path


@pytest.fixture
def data_file(cnn_file: Path, tmp_path: Path) -> Path:
    """64 samples labelled with what the model itself says of them: its accuracy is 1."""
    x = np.random.default_rng(1).normal(size=(64, 3, 8, 8)).astype(np.float32)
    y = run_session(open_session(cnn_file), {"x": x})[0].argmax(1)
    np.savez(tmp_path / "data.npz", allow_pickle=False, x=x, y=y)
    return tmp_path / "data.npz"


@pytest.fixture
def make_job(cnn_file: Path, data_file: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(recipe: str, **changes: object) -> Job:
        workspace = tmp_path / f"workspace-{len(list(tmp_path.glob('workspace-*')))}"
        workspace.mkdir()
        data = {DataRole.CALIBRATE: DataFile(path=data_file), DataRole.EVALUATE: DataFile(path=data_file)}
        fields: dict[str, object] = {
            "model": cnn_file,
            "recipe": parse_recipe(recipe),
            "output": workspace / "artifact.onnx",
            "workspace": workspace,
            "data": data,
        }
        return Job(**(fields | changes))  # type: ignore[arg-type] # the fields above, or a test's own

    return make


@pytest.fixture
def peak_of() -> Callable[[str], int]:
    """Runs Python code in a new process and tells the peak of its resident memory, bytes."""

    def run(code: str) -> int:
        told = f"{code}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1]) * 1024

    return run
