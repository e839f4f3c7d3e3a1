"""The step `quantize.static`: integer weights and activations with ranges found on calibration data."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.contracts.recipe.step import DataRole, MethodCard, Step


class WeightQuantization(BaseModel):
    """How weights are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Literal[8] = 8
    symmetric: bool = Field(True, description="Zero point at 0; integer kernels on x86 want it")
    per_channel: bool = Field(True, description="One scale per output channel")


class ActivationQuantization(BaseModel):
    """How activations are represented at run time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Literal[8] = 8
    symmetric: bool = Field(False, description="Range mirrored around 0; costs a bit of resolution after a ReLU")


class QuantizeStatic(Step):
    """Q/DQ quantization: u8 activations and s8 weights, which ONNX Runtime's x86 kernels run fastest."""

    card: ClassVar[MethodCard] = MethodCard(
        summary="8-bit weights and activations, ranges from calibration data",
        works_on="convolutions, matrix products and the operators between them that have integer kernels",
        needs=(DataRole.CALIBRATE,),
        changes_speed=True,
        paper="Jacob et al. 2018, Training of Neural Networks for Integer-Only Inference, arXiv:1712.05877",
    )

    method: Literal["quantize.static"] = "quantize.static"
    weights: WeightQuantization = WeightQuantization()
    activations: ActivationQuantization = ActivationQuantization()
    calibrator: Literal["minmax", "percentile"] = Field(
        "minmax", description="How a range is chosen from what was seen"
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="Share of values inside the range, percent, for `percentile`"
    )
    samples: int = Field(512, ge=1, le=100_000, description="At most this many calibration samples are used")
