"""What a client posts to have a model compressed."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from app.contracts.ids import DatasetId, ModelId, is_model_id
from app.contracts.preprocess import Preprocess
from app.contracts.recipe import Recipe, RecipeStep
from app.contracts.references import Reference, find_references
from app.contracts.targets import Targets

Device = Literal["auto", "cpu", "cuda"]
Task = Literal["classification", "detection", "segmentation", "regression", "none"]
# Neither NUL, which PostgreSQL cannot hold, nor escapes that would reach a terminal.
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
TagText = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=PRINTABLE)]
Tags = Annotated[dict[TagText, TagText], Field(max_length=16)]


class DataRefs(BaseModel):
    """Datasets by the role they play. Any may be absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calibrate: DatasetId | None = None
    train: DatasetId | None = None
    evaluate: DatasetId | None = None


class Limits(BaseModel):
    """How long a job may wait and how long it may run, seconds, counted apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue_s: float = Field(86400, gt=0, le=30 * 86400)
    run_s: float = Field(7200, gt=0, le=7 * 86400)


class JobSpec(BaseModel):
    """A job: a model, the steps to take, data, and what the result should reach."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelId
    recipe: Recipe
    data: DataRefs = DataRefs()
    preprocess: Preprocess | None = Field(None, description="Overrides the one given with each dataset")
    task: Task | None = Field(
        None, description="Default: classification when the evaluation data has labels, else none"
    )
    targets: Targets = Targets()
    export: list[Literal["onnx"]] = Field(default=["onnx"], min_length=1)
    device: Device = "auto"
    limits: Limits = Limits()
    priority: int = Field(5, ge=0, le=9, description="9 goes first")
    seed: int = Field(0, ge=0, lt=2**32)
    reuse: bool = Field(True, description="Answer from an identical job that is done, if there is one; the job says so")
    name: str | None = Field(None, max_length=200, pattern=PRINTABLE)
    tags: Tags = Field(default_factory=dict)

    @field_validator("recipe")
    @classmethod
    def _refers_to_models_and_earlier_steps(cls, recipe: list[RecipeStep]) -> list[RecipeStep]:
        wrong = [(each, why) for each in find_references(recipe) if (why := _find_fault(each))]
        if wrong:
            raise _at_fields(cls.__name__, wrong)
        return recipe

    @model_validator(mode="after")
    def _targets_can_be_judged(self) -> Self:
        if self.targets.need_labels and self.data.evaluate is None:
            raise ValueError("targets on accuracy need data.evaluate: a dataset with labels")
        return self


def _find_fault(reference: Reference) -> str | None:
    """Why a job may not refer to this. A path, which the library takes, would be of a file of the server."""
    match reference.target:
        case str(name) if not is_model_id(name):
            return "must be the id of an uploaded model, mdl_…"
        case int(step) if step >= reference.step:
            return f"must be the index of a step before this one, which is step {reference.step} counted from 0"
        case _:
            return None


def _at_fields(title: str, wrong: Sequence[tuple[Reference, str]]) -> ValidationError:
    """An error that names the option, where a ValueError would name the recipe as a whole."""
    return ValidationError.from_exception_data(
        title,
        [
            {"type": "value_error", "loc": each.path, "input": each.target, "ctx": {"error": ValueError(why)}}
            for each, why in wrong
        ],
    )
