"""The step `prune.magnitude`: the smallest weights become zero."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.contracts.layer_names import matches
from app.contracts.recipe.step import DataRole, LayerGlob, MethodCard, Step
from app.contracts.training import PruningSchedule

Share = Annotated[float, Field(ge=0, lt=1)]


class PruneMagnitude(Step):
    """Unstructured pruning. Zeros shrink the compressed download; ONNX Runtime does not run them faster.

    With calibration data, the statistics of normalizations and of layers they were folded into are restored afterwards.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="sets the smallest weights to zero",
        works_on="weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN",
        uses=(DataRole.CALIBRATE,),
        changes_speed=False,
        paper="Han et al. 2015, Learning both Weights and Connections for Efficient Neural Networks, arXiv:1506.02626",
    )

    method: Literal["prune.magnitude"] = "prune.magnitude"
    scope: Literal["layer", "global"] = Field(
        "layer", description="The same share in every layer, or one threshold for all"
    )
    ratios: dict[LayerGlob, Share] = Field(
        default_factory=dict,
        description="Shares of single layers, by name or glob; the first that matches counts, and 0 leaves a layer "
        "alone. They are no part of what `scope: global` compares. In a recipe string written as JSON: "
        '`ratios={"layer1.*":0.3}`',
        examples=[{"head": 0, "layer1.*": 0.3}],
    )
    amount: float | None = Field(
        None,
        gt=0,
        lt=1,
        validate_default=True,
        description="Share of the weights to zero, of all layers that `ratios` does not name; required without "
        "`ratios`, with it null leaves the others alone",
        examples=[0.5],
    )
    samples: int = Field(512, ge=1, le=100_000, description="At most this many calibration samples are used")
    restore: bool = Field(
        True,
        description="With calibration data, scale and shift the channels of pruned layers to give what they gave "
        "before, where that brings the outputs closer; zeros stay zero",
    )
    schedule: PruningSchedule | None = Field(
        None,
        description="Prune and train in rounds, which needs training data. As many weights are zero in the end as "
        "without; layers that the step leaves out do not learn",
        examples=[{"steps": 3}],
    )

    @field_validator("amount")
    @classmethod
    def _given_somewhere(cls, amount: float | None, options: ValidationInfo) -> float | None:
        # Where `ratios` itself is at fault it is not among the data, and that is told alone.
        if amount is None and options.data.get("ratios", True) == {}:
            raise ValueError("required where `ratios` gives no shares")
        return amount

    @property
    def needs(self) -> tuple[DataRole, ...]:
        """Rounds train."""
        return (DataRole.TRAIN,) if self.schedule is not None else ()

    def ratio_of(self, layer: str) -> float | None:
        """The share that `ratios` gives the layer of this name; None where it says nothing of it."""
        return next((share for pattern, share in self.ratios.items() if matches(layer, pattern)), None)

    def share_of(self, layer: str) -> float:
        """The share of its weights that the layer of this name is to lose; 0 where it is left alone."""
        ratio = self.ratio_of(layer)
        return (self.amount or 0.0) if ratio is None else ratio
