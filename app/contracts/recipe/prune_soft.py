"""The step `prune.soft`: training draws channels to zero, and then they go."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.contracts.recipe.channel_pruning import ChannelPruning
from app.contracts.recipe.step import DataRole, MethodCard
from app.contracts.training import PrunedTraining, TrainingOptions


class PruneSoft(ChannelPruning):
    """Soft structured pruning: channels shrink to zero while the network trains, and removing them changes nothing.

    As many channels go of each layer as with `prune.structured`, after the network has learnt to do without. Layers
    that the step leaves out do not learn. The last state of the training is kept.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="trains channels, heads and hidden units down to zero, then removes them",
        works_on="what prune.structured works on, in floating point",
        needs=(DataRole.TRAIN,),
        changes_speed=True,
        paper="Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming, arXiv:1708.06519; "
        "Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks, arXiv:1608.03665; "
        "Wang et al. 2021, Neural Pruning via Growing Regularization, arXiv:2012.09243",
    )

    method: Literal["prune.soft"] = "prune.soft"
    penalty: Literal["auto", "group_lasso", "bn_scale"] = Field(
        "auto",
        description="What shrinks: all weights that go with a channel, or scale and shift of its BatchNormalization; "
        "auto: bn_scale where every channel that may go has one",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Of a penalty on all channels, after which the smallest go: what it alone takes from each, as a "
        "multiple of the mean norm in its layer. By default it is put on the channels chosen to go, and grows "
        "as it must until they are zero",
    )
    until: float = Field(
        0.3, gt=0, le=0.95, description="Share of the training after which they are zero; the rest trains what stays"
    )
    train: PrunedTraining = Field(TrainingOptions(epochs=10), description="How it trains")

    @model_validator(mode="after")
    def _trains_to_the_end(self) -> Self:
        for option in ("patience", "ema"):
            if getattr(self.train, option) is not None:
                raise ValueError(f"`train.{option}` has no place here: channels are zero only at the end")
        return self
