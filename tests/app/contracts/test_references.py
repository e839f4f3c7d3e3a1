from typing import Any

import pytest
from pydantic import ValidationError

from app.contracts.job_spec import JobSpec
from app.contracts.recipe.notation import validate_recipe
from app.contracts.references import find_other_models, find_references, find_teaching_steps

MODEL, OTHER = "mdl_" + "0" * 26, "mdl_" + "1" * 26
PRUNE = {"method": "prune.magnitude", "amount": 0.5}


def train(**distill: Any) -> dict[str, Any]:
    return {"method": "train", "distill": distill}


def test_teachers_and_students_are_found_where_they_stand() -> None:
    recipe = validate_recipe([PRUNE, train(teacher=0), train(teacher=OTHER, student={"model": MODEL}), train()])
    assert [(each.pointer, each.step, each.target) for each in find_references(recipe)] == [
        ("/recipe/1/distill/teacher", 1, 0),
        ("/recipe/2/distill/teacher", 2, OTHER),
        ("/recipe/2/distill/student/model", 2, MODEL),
    ]
    assert find_other_models(recipe) == [OTHER, MODEL]
    assert find_teaching_steps(recipe) == {0}


def test_those_of_training_between_rounds_are_found_too() -> None:
    schedule = {"steps": 2, "train": {"epochs": 1, "distill": {"teacher": "big.onnx"}}}
    [found] = find_references(validate_recipe([{**PRUNE, "schedule": schedule}]))
    assert (found.pointer, found.target) == ("/recipe/0/schedule/train/distill/teacher", "big.onnx")


@pytest.mark.parametrize(
    ("distill", "option"),
    [
        ({"teacher": "/etc/passwd"}, ("teacher",)),
        ({"teacher": f"{OTHER}.onnx"}, ("teacher",)),
        ({"teacher": 1}, ("teacher",)),
        ({"teacher": 2}, ("teacher",)),
        ({"student": {"model": "../net.onnx"}}, ("student", "model")),
    ],
)
def test_a_job_refers_to_nothing_but_ids_and_earlier_steps(distill: Any, option: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as raised:
        JobSpec.model_validate({"model": MODEL, "recipe": [PRUNE, train(**distill), PRUNE]})
    [error] = raised.value.errors()
    assert error["loc"] == ("recipe", 1, "distill", *option)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as raised:
        JobSpec.model_validate({"model": MODEL, "recipe": [train(teacher=0, student={"model": "net.onnx"})]})
    assert len(raised.value.errors()) == 2
