"""The three-command tour of the README with curl, on a network made here and on sample networks."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("e2e")

STATIC = [{"method": "quantize.static"}]


def fetch_artifact(service: Any, job: Any, folder: Path) -> Path:
    """Downloaded as the tour does; the name is the server's."""
    [artifact] = job["artifacts"]
    service.curl("-OJ", f"/v1/artifacts/{artifact['id']}/content", cwd=folder)
    [file] = folder.glob("*.onnx")
    assert file.name == artifact["filename"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact["sha256"]
    assert file.stat().st_size == artifact["size_bytes"] == job["comparison"]["final"]["size_bytes"]
    return file


def test_tour(service: Any, tiny: Any, score: Callable[[Path, Path], float], tmp_path: Path) -> None:
    model = service.ask("-F", f"file=@{tiny.model}", "/v1/models")
    assert model["id"].startswith("mdl_")
    data = service.ask("-F", f"file=@{tiny.data}", "/v1/datasets")["id"]
    job = service.post(
        "/v1/jobs", {"model": model["id"], "recipe": STATIC, "data": {"calibrate": data, "evaluate": data}}
    )
    assert job["state"] == "queued"
    job = service.finish(job["id"])
    assert job["state"] == "succeeded", job["failure"]
    file = fetch_artifact(service, job, tmp_path)
    final, original = job["comparison"]["final"], job["comparison"]["original"]
    assert final["accuracy"]["value"] == pytest.approx(score(file, tiny.data), abs=1e-9)
    assert original["accuracy"]["value"] == 1.0
    assert final["size_bytes"] < 0.6 * original["size_bytes"]
    assert job["comparison"]["ratios"]["size"] == pytest.approx(final["size_bytes"] / original["size_bytes"])
    assert final["latency_ms"]["p50"] > 0


def test_tour_with_a_sample_network(
    service: Any, shared: Path, score: Callable[[Path, Path], float], tmp_path: Path
) -> None:
    model = service.upload("models", shared / "models/digits32_resnet18.onnx")
    roles = {
        role: service.upload("datasets", shared / f"data/digits32_{role}.npz") for role in ("calibrate", "evaluate")
    }
    job = service.finish(service.post("/v1/jobs", {"model": model, "recipe": STATIC, "data": roles})["id"])
    assert job["state"] == "succeeded", job["failure"]
    file = fetch_artifact(service, job, tmp_path)
    measured = score(file, shared / "data/digits32_evaluate.npz")
    assert job["comparison"]["final"]["accuracy"]["value"] == pytest.approx(measured, abs=1e-9)
    assert job["comparison"]["ratios"]["accuracy_drop"] < 0.02
    assert job["comparison"]["ratios"]["size"] < 0.6


def test_raw_body_upload_is_the_same_file(service: Any, tiny: Any) -> None:
    model = service.ask("--data-binary", f"@{tiny.model}", "/v1/models?name=raw")
    assert model["name"] == "raw"
    assert model["sha256"] == hashlib.sha256(tiny.model.read_bytes()).hexdigest()


def test_unknown_job_is_a_problem_document(service: Any) -> None:
    answer = service.curl("-i", "/v1/jobs/job_00000000000000000000000000")
    assert answer.startswith("HTTP/1.1 404")
    assert "application/problem+json" in answer
    assert json.loads(answer.partition("\n\n")[2])["code"] == "JOB_NOT_FOUND"


def test_events_stream_and_resume(service: Any, tiny: Any) -> None:
    job = tiny.send(service, [{"method": "prune.magnitude", "amount": 0.5}])
    stream = service.curl("-N", "-H", "accept: text/event-stream", f"/v1/jobs/{job['id']}/events")
    ids = re.findall(r"^id: (evt_\w+)", stream, re.MULTILINE)
    kinds = re.findall(r"^event: (\w+)", stream, re.MULTILINE)
    assert len(ids) == len(set(ids)) == len(kinds) > 4
    assert kinds[0] == kinds[-1] == "state"
    assert '"succeeded"' in stream
    fractions = [float(number) for number in re.findall(r'"fraction": ?([\d.]+)', stream)]
    assert fractions == sorted(fractions)
    resume = ("-N", "-H", "accept: text/event-stream", "-H", f"last-event-id: {ids[2]}")
    again = service.curl(*resume, f"/v1/jobs/{job['id']}/events")
    assert re.findall(r"^id: (evt_\w+)", again, re.MULTILINE) == ids[3:]
    listed = service.ask(f"/v1/jobs/{job['id']}/events?limit=200")["data"]
    assert [event["id"] for event in listed] == ids


def test_cancel_in_mid_job(service: Any, slow: Any) -> None:
    job = slow.send(service, [{"method": "prune.magnitude", "amount": (n + 1) / 40} for n in range(30)])
    service.until(job["id"], lambda seen: seen["state"] == "running" and seen["progress"]["step"] >= 1)
    service.ask("-X", "POST", f"/v1/jobs/{job['id']}/cancel")
    ended = service.finish(job["id"])
    assert ended["state"] == "cancelled"
    assert not ended["artifacts"]
