"""How many channels `prune.structured` leaves a layer, where its options decide that. No scores are known here."""

from bisect import bisect_left
from collections.abc import Mapping
from math import gcd
from typing import Literal, NamedTuple

from app.contracts.facts import ChannelFacts, LayerFacts
from app.contracts.layer_names import is_chosen, matches
from app.contracts.recipe.channel_pruning import ChannelPruning

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_FITS_KERNELS, _FEW = 4, 16
"""What `round_to: auto` is for convolutions, and the channels from which on."""

RoundTo = int | Literal["auto"]


class ChannelsLeft(NamedTuple):
    """What is left of a layer's removable units, and of all its output channels."""

    units: int
    channels: int


def planned_channels(
    facts: ChannelFacts, share: float, round_to: RoundTo = 1, *, is_convolution: bool = False
) -> ChannelsLeft:
    """What is left when of each group the share `share` (0 to 1) goes, to the nearest unit.

    Channels left of a group are a multiple of `round_to`, or all of them; at least one unit of each stays.
    """
    units = 0
    for size in facts.groups or [facts.units]:
        is_rounded = is_convolution and size * facts.per_unit >= _FEW
        multiple = round_to if round_to != "auto" else _FITS_KERNELS if is_rounded else 1
        units += _kept(size, facts.per_unit, share, multiple)
    return ChannelsLeft(units, facts.total - (facts.units - units) * facts.per_unit)


def plan_channels(step: ChannelPruning, layer: LayerFacts, layers: Mapping[str, LayerFacts]) -> ChannelsLeft | None:
    """What `step` leaves a layer that it works on; `layers` are all of the model by name.

    None where scores decide, or where it depends on which of the layer's groups is tied to which layer.
    """
    own = layer.channels
    if own is None or step.target is not None or step.allocate == "sensitivity":
        return None
    tied = [layers[name] for name in own.tied_to if name in layers]
    asked = {_ratio(step, each.name) for each in (layer, *tied)}
    kinds = {each.op in _CONVOLUTIONS for each in (layer, *tied)}
    widths = {each.channels.per_unit for each in (layer, *tied) if each.channels}
    is_chosen_alike = all(is_chosen(each.name, step.include, step.exclude) for each in tied)
    if len(own.groups) > 1 and (len(asked) > 1 or not is_chosen_alike):
        return None
    is_rounded = any(kinds) if step.round_to == "auto" else step.round_to > 1
    if is_rounded and (len(widths) > 1 or (len(own.groups) > 1 and len(kinds) > 1)):
        return None
    share = min((ratio for ratio in asked if ratio is not None), default=None)
    if share is None and step.scope == "layer":
        share = step.amount
    return None if share is None else planned_channels(own, share, step.round_to, is_convolution=any(kinds))


def why_channels_stay(step: ChannelPruning, layer: LayerFacts) -> str | None:
    """Why `step` takes no channel of a layer that it chooses; None where it may."""
    tied = layer.channels.tied_to if layer.channels else []
    is_one_group = layer.channels is None or len(layer.channels.groups) <= 1
    left_out = [name for name in tied if not is_chosen(name, step.include, step.exclude)]
    if left_out and is_one_group:
        return f"its channels go with those of {left_out[0]!r}, which the step leaves out"
    asked = [ratio for name in (layer.name, *tied) if (ratio := _ratio(step, name)) is not None]
    asks_all = step.amount is not None or step.target is not None
    is_spared = (is_one_group and 0 in asked) or not (asks_all or any(asked))
    return "the step asks nothing of it" if is_spared else None


def remark_on_channels(step: ChannelPruning) -> list[str]:
    """What is known only when the step runs."""
    told = ["layers that read what goes shrink with it; parameters and MACs left are counted when the step runs"]
    if step.target is not None or step.scope == "global" or step.allocate == "sensitivity":
        told.append("how much each layer loses is known when the step runs: it is chosen by what is measured")
    return told


def _ratio(step: ChannelPruning, name: str) -> float | None:
    """The share asked of the layer of this name; None where it is that of all layers."""
    return next((share for glob, share in step.ratios.items() if matches(name, glob)), None)


def _kept(units: int, width: int, share: float, multiple: int) -> int:
    """Units of a group left, `width` channels each: of the numbers that may be left, the nearest to what is asked."""
    stride = multiple // gcd(width, multiple)
    allowed: list[int] = [units, *range((units - 1) // stride * stride, 0, -stride)]

    def middle(place: int) -> float:
        """The share that is gone half way from one such number to the next."""
        return (2 * units - allowed[place] - allowed[place + 1]) / 2 / units

    return allowed[bisect_left(range(len(allowed) - 1), share, key=middle)]
