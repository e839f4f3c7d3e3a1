"""The step `quantize.mixed`: bits of each layer's weights, chosen by what they cost and bring under a budget."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.contracts.recipe.quantize_static import Calibrator
from app.contracts.recipe.step import DataRole, MethodCard, Step

WeightBits = Literal[4, 8, 32]


class Budget(BaseModel):
    """What must be kept: exactly one of these. The rest is made as good as it can be within it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_ratio: float | None = Field(
        None, gt=0, lt=1, description="Bytes of all weights over those of the graph that the step is given, at most"
    )
    size_bytes: int | None = Field(None, ge=1, description="Bytes of all weights, at most")
    latency_ratio: float | None = Field(
        None, gt=0, le=1, description="Median time of a call on one thread over that of the original, at most"
    )
    sqnr_db: float | None = Field(
        None, gt=0, le=150, description="SQNR of the outputs on calibration data, at least; the size is made small"
    )

    @model_validator(mode="after")
    def _one_of_all(self) -> Self:
        if sum(limit is not None for limit in self.model_dump().values()) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self


class QuantizeMixed(Step):
    """Like `quantize.static`, with weights of 4 or 8 bits, or left in float, layer by layer.

    Each layer's error is measured with every choice; integer programming then finds the choices that lose least. The
    result is measured, and where it misses the budget, others are tried. Without calibration data, inputs are
    synthesised from the model's own statistics: real ones are better.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="weights of 4 or 8 bits or in float, layer by layer, under a budget of size, latency or fidelity",
        works_on="convolutions, matrix products and the operators between them that have integer kernels",
        uses=(DataRole.CALIBRATE,),
        changes_speed=True,
        paper="Hubara et al. 2020, Accurate Post Training Quantization by Layer-wise Calibration and Integer "
        "Programming, arXiv:2006.10518",
    )

    method: Literal["quantize.mixed"] = "quantize.mixed"
    budget: Budget = Field(examples=[{"size_ratio": 0.2}])
    choices: tuple[WeightBits, ...] = Field(
        (4, 8, 32), description="Bits that a weight may have; 32 leaves its layer in float", min_length=2
    )
    solver: Literal["milp", "greedy"] = Field(
        "milp", description="milp: the best choices by what was measured; greedy: one at a time, what gains most first"
    )
    calibrator: Calibrator = Field(
        "auto", description="How a range is chosen from what was seen; `auto` measures which one is best"
    )
    samples: int = Field(512, ge=1, le=100_000, description="At most this many calibration samples are used")

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[WeightBits, ...]) -> tuple[WeightBits, ...]:
        if len(set(choices)) != len(choices):
            raise ValueError("names the same bits twice")
        return choices

    @property
    def asks_for_speed(self) -> bool:
        """By its budget."""
        return self.budget.latency_ratio is not None
