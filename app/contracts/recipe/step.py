"""What every step of a recipe has: a method's name, which layers it touches, and its card in the catalogue."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class DataRole(StrEnum):
    """What a dataset is for."""

    CALIBRATE = "calibrate"
    TRAIN = "train"
    EVALUATE = "evaluate"

    @property
    def missing_code(self) -> str:
        """The code of the failure when a step needs data of this role and has none."""
        return {"calibrate": "CALIBRATION", "train": "TRAINING", "evaluate": "EVALUATION"}[self] + "_DATA_MISSING"


class MethodCard(BaseModel):
    """A method as the catalogue shows it."""

    model_config = ConfigDict(frozen=True)

    summary: str
    works_on: str = Field(description="Which operators or networks it changes")
    needs: tuple[DataRole, ...] = Field((), description="Data without which it is refused")
    uses: tuple[DataRole, ...] = Field((), description="Data that makes it better when given")
    changes_speed: bool = Field(description="Whether ONNX Runtime can run the result faster on a CPU")
    paper: str | None = None


LayerGlob = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Step(BaseModel):
    """One step of a recipe. A method's own file in this folder adds its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: ClassVar[MethodCard]

    method: str
    include: tuple[LayerGlob, ...] = Field(
        (), description="Layer names or globs to work on; empty: all that apply", examples=[["layer1.*"]]
    )
    exclude: tuple[LayerGlob, ...] = Field((), description="Layer names or globs to leave alone; wins over `include`")

    @property
    def needs(self) -> tuple[DataRole, ...]:
        """Data without which the step is refused, with its options as they are."""
        return self.card.needs

    @property
    def asks_for_speed(self) -> bool:
        """Whether a result slower than the original misses what the step was asked for."""
        return False


class MissingData(NamedTuple):
    """Data that a step needs and was not given. `step` counts from 0."""

    step: int
    role: DataRole
    message: str


def find_missing_data(recipe: Iterable[Step], given: Collection[str]) -> MissingData | None:
    """The first need of `recipe` that the roles in `given` do not meet."""
    for index, step in enumerate(recipe):
        for role in step.needs:
            if role not in given:
                return MissingData(
                    index, role, f"step {index + 1} ({step.method}) needs {role} data, and none was given"
                )
    return None
