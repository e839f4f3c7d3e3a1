"""The step `prune.structured`: whole channels, neurons, heads and hidden units go, with all that depends on them."""

from typing import ClassVar, Literal

from pydantic import Field

from app.contracts.recipe.channel_pruning import ChannelPruning
from app.contracts.recipe.step import DataRole, MethodCard
from app.contracts.training import PruningSchedule

Criterion = Literal["l1", "l2", "fpgm", "bn_scale", "taylor", "random"]


class PruneStructured(ChannelPruning):
    """Structured pruning. The result computes what the original does with those channels masked, to float rounding.

    What goes together is found from the graph: residual sums, concatenations, splits, attention heads, gates, the two
    directions of a recurrent layer. Inputs and outputs of the model keep their shapes. With calibration data, the
    statistics of normalizations and of convolutions they were folded into are estimated again afterwards.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="removes whole channels, neurons, attention heads and hidden units",
        works_on="convolutions, matrix products, recurrent layers, embeddings and what lies between them",
        uses=(DataRole.CALIBRATE,),
        changes_speed=True,
        paper="Fang et al. 2023, DepGraph: Towards Any Structural Pruning, arXiv:2301.12900",
    )

    method: Literal["prune.structured"] = "prune.structured"
    criterion: Criterion = Field(
        "l2",
        description="What makes a channel matter: norms of its weights, or of those of convolutions that read it; "
        "fpgm: its distance from the others; bn_scale: the scale of its BatchNormalization; taylor: how much the "
        "outputs would change, over calibration data",
    )
    restore: bool = Field(True, description="Estimate statistics again where calibration data is given")
    schedule: PruningSchedule | None = Field(
        None,
        description="Prune and train in rounds, which needs training data. As many channels are left as without; "
        "layers that the step leaves out do not learn",
        examples=[{"steps": 3}],
    )

    @property
    def needs(self) -> tuple[DataRole, ...]:
        """Gradients are of calibration data, and rounds train."""
        needed = {DataRole.CALIBRATE: self.criterion == "taylor", DataRole.TRAIN: self.schedule is not None}
        return tuple(role for role, is_needed in needed.items() if is_needed)
