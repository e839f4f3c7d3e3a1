"""Training over HTTP and by the command: other models as teachers and students, and a loss curve to be watched."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("e2e")


def test_a_teacher_and_a_student_of_other_uploads(service: Any, tiny: Any) -> None:
    own, other = (service.upload("models", tiny.model) for _ in range(2))
    distill = {"teacher": other, "student": {"model": other}}
    body = {
        "model": own,
        "recipe": [{"method": "train", "epochs": 1, "distill": distill}],
        "data": {"train": service.upload("datasets", tiny.data)},
    }
    job = service.finish(service.post("/v1/jobs", body)["id"])
    assert job["state"] == "succeeded", job["failure"]
    assert list(job["reproduce"]["other_models_sha256"]) == [other]
    told = service.ask(f"/v1/jobs/{job['id']}/events?limit=200")["data"]
    curve = [event["data"] for event in told if event["type"] == "trained"]
    assert [point["epoch"] for point in curve] == [0, 1]
    assert curve[0]["loss"] is None
    assert curve[1]["loss"] >= 0


def test_no_file_of_the_server_is_read(service: Any, tiny: Any) -> None:
    step = {"method": "train", "distill": {"teacher": str(tiny.model)}}
    answer = service.post("/v1/jobs", {"model": service.upload("models", tiny.model), "recipe": [step]})
    assert (answer["code"], answer["errors"][0]["pointer"]) == ("INVALID_REQUEST", "/recipe/0/distill/teacher")


def test_the_command_uploads_the_teacher_and_shows_the_curve(service: Any, tiny: Any, tmp_path: Path) -> None:
    recipe = [{"method": "train", "epochs": 2, "distill": {"teacher": str(tiny.model)}}]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    done = service.run_cli(
        *("compress", str(tiny.model), "-r", str(tmp_path / "recipe.json"), "--train", str(tiny.data)),
        *("-o", str(tmp_path / "small.onnx"), "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("step 1, epoch 2: loss ")]
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert (tmp_path / "small.onnx").exists()
