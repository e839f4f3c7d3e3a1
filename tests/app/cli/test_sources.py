"""Files that a recipe names as teachers and students, sent to a real server."""

from pathlib import Path

import pytest

from app.cli.sources import require_sources, send_recipe
from app.client import Client
from app.contracts.failure import SlimlineError
from app.contracts.job_spec import JobSpec
from app.contracts.recipe.notation import parse_recipe, validate_recipe

KNOWN = "mdl_" + "0" * 26


def test_files_become_ids_of_uploads_each_once(served: str, tmp_path: Path) -> None:
    teacher = tmp_path / "big.onnx"
    teacher.write_bytes(b"a network")
    steps = [
        {"method": "prune.magnitude", "amount": 0.5},
        {"method": "train", "distill": {"teacher": str(teacher), "student": {"model": KNOWN}}},
        {"method": "train", "distill": {"teacher": str(teacher)}},
        {"method": "train", "distill": {"teacher": 0}},
    ]
    with Client(served) as client:
        sent = send_recipe(client, validate_recipe(steps))
        [model] = client.list("/v1/models")
    assert (model["filename"], model["size_bytes"]) == ("big.onnx", 9)
    assert sent == [
        steps[0],
        {"method": "train", "distill": {"teacher": model["id"], "student": {"model": KNOWN}}},
        {"method": "train", "distill": {"teacher": model["id"]}},
        steps[3],
    ]
    JobSpec.model_validate({"model": KNOWN, "recipe": sent})


def test_a_recipe_of_own_models_is_sent_as_it_is(served: str) -> None:
    with Client(served) as client:
        assert send_recipe(client, parse_recipe("train:distill.alpha=0.5")) == [
            {"method": "train", "distill": {"alpha": 0.5}}
        ]
        assert list(client.list("/v1/models")) == []


def test_a_teacher_that_is_no_file_is_told_before_anything_is_sent() -> None:
    with pytest.raises(SlimlineError) as raised:
        require_sources([KNOWN, "nowhere.onnx"], [])
    assert raised.value.failure.code == "FILE_UNREADABLE"
