"""`slimline compress` and its friends against a running server: files, tables, JSON, exit codes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("e2e")

RECIPE = "prune.magnitude:amount=0.5 + quantize.static"


def test_compress(service: Any, tiny: Any, score: Callable[[Path, Path], float], tmp_path: Path) -> None:
    data = ("--calibrate", str(tiny.data), "--evaluate", str(tiny.data))
    options = ("-r", RECIPE, *data, "--target", "max_size_ratio=0.9", "-o", str(tmp_path / "out.onnx"))
    done = service.run_cli("compress", str(tiny.model), *options)
    assert done.returncode == 0, done.stderr
    for word in ("original", "1 prune.magnitude", "final", "target max_size_ratio 0.9: measured", "met"):
        assert word in done.stdout
    assert f"{100 * score(tmp_path / 'out.onnx', tiny.data):.1f} %" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_missed_target_ends_with_3_and_the_file(service: Any, tiny: Any, tmp_path: Path) -> None:
    options = ("-r", "quantize.dynamic", "--target", "max_size_ratio=0.001", "-o", str(tmp_path), "--json")
    done = service.run_cli("compress", str(tiny.model), *options)
    assert done.returncode == 3, done.stderr
    job = json.loads(done.stdout)
    assert job["verdict"]["met"] is False
    assert [path.name for path in tmp_path.iterdir()] == [job["artifacts"][0]["filename"]]


def test_failed_job_ends_with_1_and_the_reason(service: Any, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"\0not a model" * 1000)
    done = service.run_cli("compress", str(tmp_path / "junk.onnx"), "-r", "quantize.dynamic", "-o", str(tmp_path / "o"))
    assert done.returncode == 1
    assert "the job failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_cancels_the_job(service: Any, slow: Any, tmp_path: Path) -> None:
    recipe = " + ".join(f"prune.magnitude:amount={(number + 1) / 40}" for number in range(30))
    data = ("--evaluate", str(slow.data))
    command = ["compress", str(slow.model), "-r", recipe, *data, "-o", str(tmp_path / "out.onnx")]
    running = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLIMLINE_URL": service.url},
    )
    assert running.stderr
    seen = ""
    while "running" not in seen:
        line = running.stderr.readline()
        assert line, seen
        seen += line
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "is cancelled" in rest
    job = next(word for word in rest.split() if word.startswith("job_"))
    assert service.finish(job)["state"] == "cancelled"
    assert not list(tmp_path.iterdir())


def test_upload_list_show_watch_download(service: Any, tiny: Any, tmp_path: Path) -> None:
    model = json.loads(service.run_cli("models", "upload", str(tiny.model), "--name", "by-hand", "--json").stdout)
    assert (model["state"], model["name"]) == ("ready", "by-hand")
    assert model["id"] in service.run_cli("models", "list").stdout
    assert "conv2" in service.run_cli("models", "layers", model["id"]).stdout
    spec = {"model": model["id"], "recipe": [{"method": "quantize.float16"}]}
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    job = service.run_cli("jobs", "submit", str(tmp_path / "job.yaml")).stdout.strip()
    watched = service.run_cli("jobs", "watch", job)
    assert watched.returncode == 0, watched.stderr
    assert "final" in watched.stdout
    assert "succeeded" in service.run_cli("jobs", "events", job).stdout
    assert service.run_cli("jobs", "comparison", job, "--format", "csv").stdout.startswith("stage,size_bytes,")
    [saved] = json.loads(service.run_cli("jobs", "download", job, "-o", str(tmp_path / "half.onnx"), "--json").stdout)
    assert saved["path"] == str(tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < tiny.model.stat().st_size
    [artifact] = json.loads(service.run_cli("artifacts", "list", "--job", job, "--json").stdout)
    assert artifact["id"] in service.run_cli("artifacts", "show", artifact["id"]).stdout


def test_rejected_upload_ends_with_1(service: Any, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"\0not a model" * 1000)
    done = service.run_cli("models", "upload", str(tmp_path / "junk.onnx"))
    assert done.returncode == 1
    assert "rejected" in done.stderr


def test_methods(service: Any) -> None:
    names = {method["name"] for method in json.loads(service.run_cli("methods", "list", "--json").stdout)}
    assert {"quantize.static", "prune.magnitude"} <= names
    assert "amount" in service.run_cli("methods", "show", "prune.magnitude").stdout


def test_refusal_by_the_server_names_the_id(service: Any) -> None:
    done = service.run_cli("jobs", "show", "job_00000000000000000000000000")
    assert done.returncode == 1
    assert "job_00000000000000000000000000" in done.stderr
