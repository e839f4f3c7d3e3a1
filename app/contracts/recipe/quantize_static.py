"""The step `quantize.static`: integer weights and activations with ranges found on calibration data."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.contracts.recipe.step import DataRole, MethodCard, Step

Calibrator = Literal["auto", "minmax", "percentile", "entropy", "mse"]
TargetName = Literal["device", "cpu-x86", "cpu-arm", "tensorrt", "openvino"]
RepairName = Literal["equalization", "smoothing", "range_search", "bias_correction", "reversion"]


class WeightQuantization(BaseModel):
    """How weights are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Literal[4, 8] = Field(8, description="4 saves size alone: CPUs have no kernel that multiplies them")
    symmetric: bool = Field(True, description="Zero point at 0; integer kernels on x86 want it")
    per_channel: bool | None = Field(
        None,
        description="One scale per output channel, or one for the whole weight, which kernels run a little faster; "
        "null: the latter where it costs less than 1 dB",
    )

    @model_validator(mode="after")
    def _one_zero_point(self) -> Self:
        if self.per_channel and not self.symmetric:
            raise ValueError("asymmetric weights need `per_channel: false`: kernels take one zero point for a weight")
        return self


class ActivationQuantization(BaseModel):
    """How activations are represented at run time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Literal[8, 16] = Field(8, description="16 for accelerators that multiply 16 by 8 bits; CPUs run it in float")
    symmetric: bool = Field(False, description="Range mirrored around 0; costs a bit of resolution after a ReLU")


class QuantizeStatic(Step):
    """Q/DQ quantization: u8 activations and s8 weights, which ONNX Runtime's x86 kernels run fastest.

    What is known to repair the loss is tried, measured on the calibration data, and kept only where it helps. Without
    calibration data, inputs are synthesised from the model's own statistics: real ones are better.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="8-bit weights and activations, ranges from calibration data, losses repaired",
        works_on="convolutions, matrix products and the operators between them that have integer kernels",
        uses=(DataRole.CALIBRATE,),
        changes_speed=True,
        paper="Jacob et al. 2018, Training of Neural Networks for Integer-Only Inference, arXiv:1712.05877",
    )

    method: Literal["quantize.static"] = "quantize.static"
    preset: Literal["balanced", "speed", "accuracy"] = Field(
        "balanced",
        description="`balanced`: as much in integers as costs no more than 6 dB, a bit; `speed`: than 12 dB, and a "
        "result slower than the original is a missed clause of the verdict; `accuracy`: the most faithful, with layers "
        "left in float where that brings a lot",
    )
    weights: WeightQuantization = WeightQuantization()
    activations: ActivationQuantization = ActivationQuantization()
    calibrator: Calibrator = Field(
        "auto", description="How a range is chosen from what was seen; `auto` measures which one is best"
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="Share of values inside the range, percent, for `percentile`"
    )
    samples: int = Field(512, ge=1, le=100_000, description="At most this many calibration samples are used")
    repairs: tuple[RepairName, ...] = Field(
        ("equalization", "smoothing", "range_search", "bias_correction", "reversion"),
        description="What may be tried against the loss; each is kept only where it measures better",
    )
    target: TargetName = Field("device", description="The runtime whose kernels the artifact is made to fuse into")

    @property
    def asks_for_speed(self) -> bool:
        """By its preset."""
        return self.preset == "speed"
