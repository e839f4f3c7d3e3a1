"""Operators that join tensors and pad them: indices go their own ways, those that are left keep their order."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Labels
from worker.engine.graph.channels.walk import Walk, attribute, called

_PADS, _VALUE, _PLACES = 1, 2, 3
"""Inputs of Pad."""


@rule("Concat")
def _concat(walk: Walk, node: ir.Node) -> None:
    parts = [axes for value in node.inputs if (axes := walk.known_axes(value)) is not None]
    if len(parts) < len(node.inputs):
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    axis = attribute(node, "axis", 0) % len(parts[0])
    made = list(parts[0])
    for axes in parts[1:]:
        for place, labels in enumerate(axes):
            if place != axis:
                walk.unite(labels, made[place])
    made[axis] = np.concatenate([axes[axis] for axes in parts])
    return walk.give(node.outputs[0], made, zero=all(map(walk.is_zero, node.inputs)))


@rule("Pad")
def _pad(walk: Walk, node: ir.Node) -> None:
    axes, made = walk.known_axes(node.inputs[0]), walk.stuck(node.outputs[0], f"{called(node)} pads along it")
    widths = None if axes is None else _read_widths(walk, node, len(axes))
    if axes is None or made is None or widths is None:
        return walk.give_up(node, f"how much {called(node)} adds depends on the input")
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    passed, padded = list(axes), dict[int, Labels]()
    for place, (before, after) in widths.items():
        if mode == "constant" and min(before, after) >= 0 and walk.is_fixed(node.inputs[0], place):
            passed[place] = np.concatenate([walk.unions.fresh(before), axes[place], walk.unions.fresh(after)])
            padded[place] = passed[place]
        else:
            walk.block(axes[place], f"{called(node)} pads along it")
            passed[place] = made[place]
    walk.later(node, partial(_set_pads, widths=widths, padded=padded, rank=len(axes)))
    zero = walk.is_zero(node.inputs[0]) and mode == "constant" and _pads_with_zeros(walk, node)
    return walk.give(node.outputs[0], passed, zero=zero)


def _read_widths(walk: Walk, node: ir.Node, rank: int) -> dict[int, tuple[int, int]] | None:
    """How many indices are put before and after, by axis, where there are any; None where that is computed."""
    pads, places = walk.constant(node, _PADS), np.arange(rank)
    if len(node.inputs) > _PLACES and node.inputs[_PLACES] is not None:
        known = walk.constant(node, _PLACES)
        if known is None:
            return None
        places = known % rank
    if pads is None:
        return None
    ends = zip(places.tolist(), pads[: len(places)].tolist(), pads[len(places) :].tolist(), strict=True)
    return {place: (before, after) for place, before, after in ends if before or after}


def _pads_with_zeros(walk: Walk, node: ir.Node) -> bool:
    if len(node.inputs) <= _VALUE or node.inputs[_VALUE] is None:
        return True
    value = walk.constant(node, _VALUE)
    return value is not None and not value.any()


def _set_pads(
    removal: Removal, node: ir.Node, *, widths: Mapping[int, tuple[int, int]], padded: Mapping[int, Labels], rank: int
) -> None:
    """As many indices are put before and after as are left of them."""
    if all(removal.kept(labels).all() for labels in padded.values()):
        return
    ends = {place: widths.get(place, (0, 0)) for place in range(rank)}
    for place, labels in padded.items():
        (before, after), kept = ends[place], removal.kept(labels)
        ends[place] = (int(kept[:before].sum()), int(kept[len(kept) - after :].sum()))
    removal.set_integers(node, _PADS, [number for side in zip(*ends.values(), strict=True) for number in side])
    if len(node.inputs) > _PLACES:
        node.replace_input_with(_PLACES, None)
