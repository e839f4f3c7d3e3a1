"""What every step of a recipe has: a method's name, which layers it touches, and its card in the catalogue."""

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class DataRole(StrEnum):
    """What a dataset is for."""

    CALIBRATE = "calibrate"
    TRAIN = "train"
    EVALUATE = "evaluate"


class MethodCard(BaseModel):
    """A method as the catalogue shows it."""

    model_config = ConfigDict(frozen=True)

    summary: str
    works_on: str = Field(description="Which operators or networks it changes")
    needs: tuple[DataRole, ...] = Field((), description="Data without which it is refused")
    uses: tuple[DataRole, ...] = Field((), description="Data that makes it better when given")
    changes_speed: bool = Field(description="Whether ONNX Runtime can run the result faster on a CPU")
    paper: str | None = None


class Step(BaseModel):
    """One step of a recipe. A method's own file in this folder adds its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: ClassVar[MethodCard]

    method: str
    include: tuple[str, ...] = Field(
        (), description="Layer names or globs to work on; empty: all that apply", examples=[["layer1.*"]]
    )
    exclude: tuple[str, ...] = Field((), description="Layer names or globs to leave alone; wins over `include`")
