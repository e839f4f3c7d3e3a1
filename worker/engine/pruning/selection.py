"""Which channel groups a step may work on, what share is asked of each, and why it leaves layers alone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.contracts.layer_names import matches
from app.contracts.preflight import LEFT_OUT
from app.contracts.recipe.channel_pruning import ChannelPruning
from worker.engine.graph import Graph
from worker.engine.graph.channels import Group, Groups

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_FITS_KERNELS, _FEW = 4, 16
"""ONNX Runtime runs convolutions in blocks of channels where there are a multiple of 4; below 16 it hardly matters."""


RoundTo = int | Literal["auto"]


@dataclass(frozen=True)
class Selection:
    """Groups, the share asked of each (None: as for all), and by layer name why its channels stay.

    Of the channels of each group a multiple of the number in `multiples` is left.
    """

    groups: Sequence[Group]
    shares: Sequence[float | None]
    multiples: Sequence[int]
    reasons: Mapping[str, str]


def select_groups(graph: Graph, groups: Groups, step: ChannelPruning) -> Selection:
    """The groups all of whose layers are chosen and asked for a share.

    Raises SlimlineError LAYER_UNKNOWN for a name or glob that matches no layer.
    """
    chosen = {layer.name for layer in graph.select(step.include, step.exclude)}
    for pattern in step.ratios:
        graph.select([pattern])
    asks_all = step.amount is not None or step.target is not None
    reasons = {layer.name: why for layer in graph.layers() if (why := groups.obstacle(layer))}
    kept: list[Group] = []
    shares: list[float | None] = []
    for group in groups.groups:
        share = _share(group, step.ratios)
        why = _why_not(group, chosen, share, asks_all=asks_all)
        if why is None:
            kept.append(group)
            shares.append(share)
        else:
            reasons.update(dict.fromkeys(group.layers, why))
    reasons.update({layer.name: LEFT_OUT for layer in graph.layers() if layer.name not in chosen})
    operators = operators_of(groups)
    multiples = [multiple_of(group, operators, step.round_to) for group in kept]
    return Selection(kept, shares, multiples, reasons)


def operators_of(groups: Groups) -> dict[str, str]:
    """The operator of each layer by its name."""
    return {layer.name: layer.op for layer in groups.graph.layers()}


def multiple_of(group: Group, operators: Mapping[str, str], round_to: RoundTo) -> int:
    """What the channels left of a group are a multiple of; `operators` by layer name."""
    if round_to != "auto":
        return round_to
    is_convolution = any(operators[name] in _CONVOLUTIONS for name in group.layers)
    return _FITS_KERNELS if is_convolution and len(group.units) * group.width >= _FEW else 1


def _share(group: Group, ratios: Mapping[str, float]) -> float | None:
    """The least of what is asked of the group's layers; None where nothing is."""
    asked = [
        share
        for name in group.layers
        for share in [next((ratios[pattern] for pattern in ratios if matches(name, pattern)), None)]
        if share is not None
    ]
    return min(asked, default=None)


def _why_not(group: Group, chosen: Collection[str], share: float | None, *, asks_all: bool) -> str | None:
    """Why the group stays; None where it may lose units."""
    left_out = [name for name in group.layers if name not in chosen]
    if left_out:
        return f"its channels go with those of {left_out[0]!r}, which the step leaves out"
    if share == 0 or (share is None and not asks_all):
        return "the step asks nothing of it"
    if len(group.units) == 1:
        return f"all its channels go together: it is one {group.kind}"
    return None
