"""What steps that remove channels have in common: how many go, and of which layers. It is no method."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.contracts.recipe.step import LayerGlob, Step

Share = Annotated[float, Field(ge=0, lt=1)]


class PruningTarget(BaseModel):
    """What is to be left: exactly one of these, over that of the graph that the step is given. Reached within 2 %."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: float | None = Field(None, gt=0, lt=1, description="Numbers in weights")
    macs: float | None = Field(None, gt=0, lt=1, description="Multiply-accumulates of one sample")
    latency: float | None = Field(None, gt=0, lt=1, description="Median time of a call on one thread here, measured")

    @model_validator(mode="after")
    def _one_of_all(self) -> Self:
        if sum(limit is not None for limit in self.model_dump().values()) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self


class ChannelPruning(Step):
    """How many channels go, by share or by target, and what is done about what is left."""

    amount: float | None = Field(
        None,
        gt=0,
        lt=1,
        validate_default=True,
        description="Share of the channels that go; required without `target` and `ratios`",
        examples=[0.3],
    )
    target: PruningTarget | None = Field(
        None, description="Instead of `amount`: as many go as this takes", examples=[{"macs": 0.5}]
    )
    ratios: dict[LayerGlob, Share] = Field(
        default_factory=dict,
        description="Shares of single layers, by name or glob, the first that matches; 0 leaves a layer as it is. "
        "Without `amount` and `target` other layers stay",
        examples=[{"layer1.*": 0.5}],
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="The same share of every layer; or the least of all channels, against their layer's mean"
    )
    allocate: Literal["uniform", "sensitivity"] = Field(
        "uniform",
        description="sensitivity: measures what each layer loses at several shares, then takes where it is least",
    )
    round_to: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="Channels left are a multiple of this, the nearest; auto: of 4 for convolutions, which ONNX "
        "Runtime runs in blocks then",
    )
    samples: int = Field(512, ge=1, le=100_000, description="At most this many calibration samples are used")

    @model_validator(mode="after")
    def _says_how_much(self) -> Self:
        if self.amount is not None and self.target is not None:
            raise ValueError("give `amount` or `target`, not both")
        if self.amount is None and self.target is None and not any(self.ratios.values()):
            raise ValueError("say how much: `amount`, `target`, or `ratios` of layers")
        if self.allocate == "sensitivity" and (self.ratios or (self.amount is None and self.target is None)):
            raise ValueError("`allocate: sensitivity` chooses the shares: give `amount` or `target`, and no `ratios`")
        return self

    @property
    def asks_for_speed(self) -> bool:
        """By its target."""
        return self.target is not None and self.target.latency is not None
