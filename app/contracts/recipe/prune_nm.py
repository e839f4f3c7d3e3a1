"""The step `prune.nm`: of every `m` neighbouring weights at most `n` stay."""

from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.contracts.recipe.step import DataRole, MethodCard, Step
from app.contracts.training import PruningSchedule


class PruneNm(Step):
    """Semi-structured pruning, n:m along the axis that is summed over: what sparse tensor cores run, as 2:4.

    ONNX Runtime runs the zeros no faster; they shrink the compressed download. With calibration data, the inputs of
    layers have a say in what goes, and statistics are restored afterwards.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="keeps n of every m neighbouring weights, 2 of 4 by default, as sparse tensor cores want it",
        works_on="weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN that sum over a multiple of m inputs",
        uses=(DataRole.CALIBRATE,),
        changes_speed=False,
        paper="Mishra et al. 2021, Accelerating Sparse Deep Neural Networks, arXiv:2104.08378; "
        "Sun et al. 2023, A Simple and Effective Pruning Approach for Large Language Models (Wanda), arXiv:2306.11695",
    )

    method: Literal["prune.nm"] = "prune.nm"
    m: int = Field(4, ge=2, le=64, description="Neighbours that make a group; a convolution's are input channels")
    n: int = Field(2, ge=1, validate_default=True, description="Weights that stay in each group, fewer than `m`")
    criterion: Literal["auto", "magnitude", "wanda"] = Field(
        "auto",
        description="Which weights stay: the largest, or those of the largest product with the norm of their input on "
        "calibration data; `auto` is `wanda` where there is such data",
    )
    samples: int = Field(512, ge=1, le=100_000, description="At most this many calibration samples are used")
    restore: bool = Field(
        True,
        description="With calibration data, scale and shift the channels of pruned layers to give what they gave "
        "before, where that brings the outputs closer; zeros stay zero",
    )
    schedule: PruningSchedule | None = Field(
        None,
        description="Prune and train in rounds, which needs training data: of the zeros that the groups ask for, more "
        "are there after each. Layers that the step leaves out do not learn",
        examples=[{"steps": 3}],
    )

    @field_validator("n")
    @classmethod
    def _fewer_than_the_group(cls, n: int, options: ValidationInfo) -> int:
        m = options.data.get("m", n + 1)
        if n >= m:
            raise ValueError(f"must be less than `m`, which is {m}")
        return n

    @property
    def needs(self) -> tuple[DataRole, ...]:
        """Wanda's scores are of inputs, and rounds train."""
        needed = {DataRole.CALIBRATE: self.criterion == "wanda", DataRole.TRAIN: self.schedule is not None}
        return tuple(role for role, is_needed in needed.items() if is_needed)
