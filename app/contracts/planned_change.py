"""What a step will do to a layer, as far as its options and the facts say before it runs. Nothing is estimated here."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from app.contracts.facts import LayerFacts
from app.contracts.planned_channels import plan_channels, remark_on_channels, why_channels_stay
from app.contracts.recipe import Step
from app.contracts.recipe.channel_pruning import ChannelPruning
from app.contracts.recipe.prune_magnitude import PruneMagnitude
from app.contracts.recipe.prune_nm import PruneNm
from app.contracts.recipe.quantize_bfloat16 import QuantizeBfloat16
from app.contracts.recipe.quantize_dynamic import QuantizeDynamic
from app.contracts.recipe.quantize_float16 import QuantizeFloat16
from app.contracts.recipe.quantize_static import QuantizeStatic
from app.contracts.recipe.quantize_weights import QuantizeWeights


class PlannedChange(BaseModel):
    """What becomes of a layer. Null is what does not change, or what is known only when the step runs."""

    units_left: int | None = Field(None, description="Of `channels.units`")
    channels_left: int | None = Field(None, description="Of `channels.total`")
    sparsity: float | None = Field(None, description="Share of its weights that will be zero")
    bits: int | None = Field(None, description="Of its weights")
    activation_bits: int | None = Field(None, description="Of its input")


def foresee(step: Step, layer: LayerFacts, layers: Mapping[str, LayerFacts]) -> PlannedChange:
    """What `step` does to a layer that it works on; `layers` are all of the model by name."""
    change = PlannedChange()
    match step:
        case PruneMagnitude():
            share = step.ratio_of if step.scope == "global" else step.share_of
            change = PlannedChange(sparsity=share(layer.name))
        case PruneNm():
            change = PlannedChange(sparsity=1 - step.n / step.m)
        case QuantizeStatic():
            change = PlannedChange(bits=step.weights.bits, activation_bits=step.activations.bits)
        case QuantizeDynamic():
            change = PlannedChange(bits=step.weights.bits)
        case QuantizeWeights():
            change = PlannedChange(bits=step.bits)
        case QuantizeFloat16() | QuantizeBfloat16():
            change = PlannedChange(bits=16)
        case ChannelPruning():
            left = plan_channels(step, layer, layers)
            change = PlannedChange(units_left=left.units, channels_left=left.channels) if left else change
    return change


def why_spared(step: Step, layer: LayerFacts) -> str | None:
    """Why a step takes nothing of a layer that it chooses, by the shares it gives; None where it may."""
    match step:
        case PruneMagnitude():
            return None if step.share_of(layer.name) else "the step asks nothing of it"
        case ChannelPruning():
            return why_channels_stay(step, layer)
    return None


def why_unsure(step: Step) -> str | None:
    """Why a layer that the method works on by default may yet be no layer for `step`; None where that is sure."""
    if isinstance(step, PruneNm) and step.m != (default := PruneNm().m):
        return f"it works on it with m={default}; whether groups of {step.m} fit is known when the step runs"
    return None


def remark(step: Step) -> list[str]:
    """What is known only when the step runs, for people."""
    match step:
        case PruneMagnitude(scope="layer") | PruneNm() | QuantizeDynamic() | QuantizeWeights():
            return []
        case QuantizeFloat16() | QuantizeBfloat16():
            return []
        case PruneMagnitude():
            return ["layers without a ratio share one threshold: how many zeros each gets is known when the step runs"]
        case QuantizeStatic():
            return ["a layer is left in float where that measures better"]
        case ChannelPruning():
            return remark_on_channels(step)
    return ["what becomes of each layer is known when the step runs"]
