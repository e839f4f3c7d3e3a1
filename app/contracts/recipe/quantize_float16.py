"""The step `quantize.float16`: half-precision weights and arithmetic."""

from typing import ClassVar, Literal

from pydantic import Field

from app.contracts.recipe.step import MethodCard, Step


class QuantizeFloat16(Step):
    """Halves the file. On a CPU without native half arithmetic it is a saving of size, not of time."""

    card: ClassVar[MethodCard] = MethodCard(
        summary="16-bit floating point; half the bytes, no data needed",
        works_on="every float32 operator; those whose values leave the range of float16 stay float32",
        changes_speed=False,
        paper="Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740",
    )

    method: Literal["quantize.float16"] = "quantize.float16"
    keep_io: bool = Field(True, description="Inputs and outputs keep their float32 type")
