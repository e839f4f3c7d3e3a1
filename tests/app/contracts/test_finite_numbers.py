"""NaN and infinity are no numbers of JSON, though Python's parser takes them: no field of a job may."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.contracts.job_spec import JobSpec
from app.contracts.recipe import METHODS

NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


def reached(kind: Any, seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
        seen.add(kind)
        for field in kind.model_fields.values():
            reached(field.annotation, seen)
    for inner in get_args(kind):
        reached(inner, seen)
    return seen


def loose_fields() -> Iterator[str]:
    models = set().union(*(reached(kind, set()) for kind in (JobSpec, *METHODS.values())))
    for model in models:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                continue
            finite = {"allow_inf_nan": False} if model.model_config.get("allow_inf_nan") is False else {}
            adapter = TypeAdapter(Annotated[field.annotation, field], config=finite)
            for number in NOT_FINITE:
                try:
                    adapter.validate_python(number)
                except ValidationError:
                    continue
                yield f"{model.__name__}.{name} takes {number}"


def test_no_field_of_a_job_takes_them() -> None:
    assert list(loose_fields()) == []


@pytest.mark.parametrize("target", ["max_size_ratio", "max_latency_ms"])
def test_nor_does_a_target(target: str) -> None:
    with pytest.raises(ValidationError, match="finite"):
        JobSpec.model_validate(
            {
                "model": "mdl_01JD3Q4W8Z6T5R2N9B7K1M0XCV",
                "recipe": [{"method": "quantize.dynamic"}],
                "targets": {target: float("inf")},
            }
        )
