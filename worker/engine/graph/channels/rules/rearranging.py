"""Operators that rearrange: transposes, reshapes and what can be written as one. Indices are followed through them."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.heads import finds_heads
from worker.engine.graph.channels.regrouping import Regrouping, regroup
from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.sizes import ShapeOf
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.targets import set_target
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Split, Walk, attribute, called


@rule("Transpose")
def _transpose(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is not None:
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(axes))[::-1]
        axes = [axes[axis] for axis in order]
    walk.give(node.outputs[0], axes, zero=walk.is_zero(node.inputs[0]))


@rule("Squeeze", "Unsqueeze")
def _change_rank(walk: Walk, node: ir.Node) -> None:
    """Axes of size 1 come or go; the others keep their order."""
    axes, shape = walk.known_axes(node.inputs[0]), walk.sizes.of(node.outputs[0])
    if axes is None or shape is None:
        return walk.give(node.outputs[0], None)
    kept = [labels for labels in axes if len(labels) != 1]
    remaining, single = iter(kept), walk.blocked(1, "there is only one")
    fits = len(kept) == sum(size != 1 for size in shape)
    made = [single if size == 1 else next(remaining) for size in shape] if fits else None
    if node.op_type == "Squeeze" and walk.constant(node, 1) is None:
        walk.later(node, _name_axes)
    return walk.give(node.outputs[0], made, zero=walk.is_zero(node.inputs[0]))


def _name_axes(removal: Removal, node: ir.Node) -> None:
    """Without axes Squeeze would take those too that are left with one index."""
    value = node.inputs[0]
    sizes = removal.sizes.of(value) or ()
    if any(removal.loses(value, axis) for axis in range(len(sizes))):
        removal.set_integers(node, 1, [axis for axis, size in enumerate(sizes) if size == 1])


@rule("Reshape", "Flatten")
def _reshape(walk: Walk, node: ir.Node) -> None:
    value, output = node.inputs[0], node.outputs[0]
    axes = walk.known_axes(value)
    made = None if value is None or axes is None else _regrouped(walk, node, value, axes)
    walk.give(output, made, zero=walk.is_zero(value))
    if node.op_type == "Reshape" and made is not None:
        walk.later(node, set_target)


def _regrouped(walk: Walk, node: ir.Node, value: ir.Value, axes: Axes) -> Axes | None:
    first, second = (_regrouping(value, node.outputs[0], sizes) for sizes in (walk.sizes.of, walk.sizes.again))
    if first is None or second is None or not first.is_like(second):
        return None
    factors: dict[int, Labels] = {}
    for place, (labels, own) in enumerate(zip(axes, first.before, strict=True)):
        factors.update(zip(own, _take_apart(walk, node, place, labels, first), strict=True))
    return [_put_together(walk, node, [factors[factor] for factor in own]) for own in first.after]


def _regrouping(value: ir.Value, output: ir.Value, shape_of: ShapeOf) -> Regrouping | None:
    before, after = shape_of(value), shape_of(output)
    return None if before is None or after is None else regroup(before, after)


def _take_apart(walk: Walk, node: ir.Node, place: int, labels: Labels, whole: Regrouping) -> list[Labels]:
    """The labels of each factor of an axis: only one factor can lose indices, the others stay whole."""
    sizes = [whole.sizes[factor] for factor in whole.before[place]]
    if len(sizes) <= 1:
        return [labels] * len(sizes)
    if not walk.is_free(labels):
        return [walk.blocked(size, walk.reasons[int(labels[0])]) for size in sizes]
    grid = labels.reshape(sizes)
    varying = [factor for factor in range(len(sizes)) if (np.diff(grid, axis=factor) != 0).any()]
    chosen = varying[0] if len(varying) == 1 else _choose(walk, node, place, whole, grid)
    reason = f"{called(node)} takes it apart, and parts must stay equal"
    rows = np.moveaxis(grid, chosen, 0).reshape(sizes[chosen], -1)
    return [rows[:, 0] if factor == chosen else walk.blocked(size, reason) for factor, size in enumerate(sizes)]


def _choose(walk: Walk, node: ir.Node, place: int, whole: Regrouping, grid: Labels) -> int:
    """The factor that can lose indices, which unites the others': attention heads first, then the largest."""
    factors, key = whole.before[place], (node.name or "", place)
    heads = _find_heads(walk, node, factors, whole)
    candidates = sorted(range(len(factors)), key=lambda factor: (not heads[factor], -grid.shape[factor]))
    chosen = walk.choices.get(key, candidates[0])
    rows = np.moveaxis(grid, chosen, 0).reshape(grid.shape[chosen], -1)
    walk.unite(rows[:, 1:], rows[:, :1])
    walk.splits[key] = Split(candidates, chosen, heads[chosen], rows[:, 0])
    return chosen


def _find_heads(walk: Walk, node: ir.Node, factors: Sequence[int], whole: Regrouping) -> list[bool]:
    """Which factors of an axis count attention heads, or groups of a normalization."""
    places = {factor: axis for axis, own in enumerate(whole.after) for factor in own}
    return [finds_heads(node.outputs[0], places[factor], walk.sizes.of) for factor in factors]


def _put_together(walk: Walk, node: ir.Node, factors: Sequence[Labels]) -> Labels:
    """The labels of an axis made of factors, of which only one can lose indices: the largest that may."""
    if not factors:
        return walk.blocked(1, "there is only one")
    free = [labels for labels in factors if walk.is_free(labels)]
    chosen = max(free or factors, key=len)
    for labels in free:
        if labels is not chosen:
            walk.block(labels, f"{called(node)} puts it together with others, and parts must stay equal")
    shape = [len(labels) for labels in factors]
    place = next(index for index, labels in enumerate(factors) if labels is chosen)
    return np.broadcast_to(chosen.reshape([-1 if i == place else 1 for i in range(len(shape))]), shape).reshape(-1)


@rule("DepthToSpace")
def _depth_to_space(walk: Walk, node: ir.Node) -> None:
    """Channels are block x block x C, or with mode CRD C x block x block."""
    axes, squared = walk.known_axes(node.inputs[0]), attribute(node, "blocksize", 1) ** 2
    is_crd = "mode" in node.attributes and node.attributes["mode"].as_string() == "CRD"
    if axes is None:
        return walk.give(node.outputs[0], None)
    channels = walk.unite_rows(axes[1], len(axes[1]) // squared) if is_crd else walk.unite_columns(axes[1], squared)
    return _give_channels(walk, node, axes, channels)


@rule("SpaceToDepth")
def _space_to_depth(walk: Walk, node: ir.Node) -> None:
    """Channels come out as block x block x C."""
    axes, squared = walk.known_axes(node.inputs[0]), attribute(node, "blocksize", 1) ** 2
    if axes is None:
        return walk.give(node.outputs[0], None)
    return _give_channels(walk, node, axes, np.tile(axes[1], squared))


def _give_channels(walk: Walk, node: ir.Node, axes: Axes, channels: Labels) -> None:
    """Channels are known; positions are mixed with others."""
    reason = f"it is a position, and {called(node)} makes channels of some or some of channels"
    made = walk.stuck(node.outputs[0], reason)
    for labels in axes[2:]:
        walk.block(labels, reason)
    passed = None if made is None else [axes[0], channels, *made[2:]]
    walk.give(node.outputs[0], passed, zero=walk.is_zero(node.inputs[0]))
