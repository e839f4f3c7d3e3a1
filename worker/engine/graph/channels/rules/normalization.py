"""Normalizations: those of single channels lose them freely; those over channels only where rescaling is exact."""

import math
from collections.abc import Iterable
from functools import partial

import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.rules.broadcasting import broadcast, spans, tie
from worker.engine.graph.channels.table import MICROSOFT, rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, attribute, called

_CHANNELS = 1
_SCALE = 1
_EPSILON = {"SkipSimplifiedLayerNormalization": 1e-12}
"""What is added where a node does not say, 1e-5 elsewhere."""


def _statistics_reason(node: ir.Node) -> str:
    return f"without it there would be another mean and variance in {called(node)}"


def _block(walk: Walk, axes: Iterable[Labels], node: ir.Node) -> None:
    """What is left of the indices would have other statistics."""
    for labels in axes:
        walk.block(labels, _statistics_reason(node))


def _affine_by_channel(walk: Walk, node: ir.Node, axes: Axes, place: int) -> bool:
    """Tie scale and bias, inputs 1 and 2, with the channels at `place`; whether the result is zero where masked."""
    channels = axes[place]
    for value in node.inputs[_SCALE:]:
        own = walk.known_axes(value)
        if own is not None:
            tie(walk, own, [channels])
    others = [labels for position, labels in enumerate(axes) if position != place]
    vectors = node.inputs[_SCALE : _SCALE + 2]
    return all(map(walk.is_zero, vectors)) and not any(map(walk.is_free, others))


@rule("BatchNormalization")
def _batch_norm(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    zero = _affine_by_channel(walk, node, axes, _CHANNELS)
    walk.give(node.outputs[0], axes, zero=zero)
    for statistic in node.outputs[1:]:
        walk.give(statistic, [axes[_CHANNELS]])
    return None


@rule("InstanceNormalization")
def _instance_norm(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    _block(walk, axes[_CHANNELS + 1 :], node)
    return walk.give(node.outputs[0], axes, zero=_affine_by_channel(walk, node, axes, _CHANNELS))


@rule("GroupNormalization")
@rule("GroupNorm", domain=MICROSOFT)
def _group_norm(walk: Walk, node: ir.Node) -> None:
    """A group of channels goes as a whole. ONNX Runtime's own has channels last where it says so."""
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    name = "groups" if node.domain else "num_groups"
    place = len(axes) - 1 if attribute(node, "channels_last", 0) else _CHANNELS
    groups = walk.unite_rows(axes[place], attribute(node, name, 1))
    if len(groups) == 1:
        _block(walk, [groups], node)
    zero = _affine_by_channel(walk, node, axes, place)
    _block(walk, [labels for position, labels in enumerate(axes) if position not in (0, place)], node)
    walk.later(node, partial(_count_groups, name=name, groups=groups))
    return walk.give(node.outputs[0], axes, zero=zero)


def _count_groups(removal: Removal, node: ir.Node, *, name: str, groups: Labels) -> None:
    node.attributes[name] = ir.AttrInt64(name, int(removal.kept(groups).sum()))


@rule("LayerNormalization")
def _layer_norm(walk: Walk, node: ir.Node) -> None:
    """Further outputs, mean and inverse deviation, have one index along the axes that are normalized."""
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    first, single = _normalized(node, axes), walk.blocked(1, "there is only one")
    _block(walk, axes[first:], node)
    _tie_affine(walk, node, axes)
    walk.give(node.outputs[0], axes)
    for output in node.outputs[1:]:
        walk.give(output, [*axes[:first], *[single] * (len(axes) - first)])
    return None


def _tie_affine(walk: Walk, node: ir.Node, axes: Axes) -> None:
    """Scale and bias broadcast to the input."""
    for value in node.inputs[_SCALE:]:
        tie(walk, walk.known_axes(value) or [], axes)


def _normalized(node: ir.Node, axes: Axes) -> int:
    """The first of the axes that are normalized together."""
    return attribute(node, "axis", -1) % len(axes)


@rule("SkipLayerNormalization", domain=MICROSOFT)
def _skip_layer_norm(walk: Walk, node: ir.Node) -> None:
    """The sum of the first two inputs, normalized."""
    walk.give_up(node, _statistics_reason(node))


@rule("RMSNormalization")
def _rms_norm(walk: Walk, node: ir.Node) -> None:
    """Masked channels are zeros in the mean of squares: scale and epsilon make up for the smaller count."""
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    first = _normalized(node, axes)
    if first == len(axes) - 1 and walk.is_zero(node.inputs[0]):
        _tie_rescaled(walk, node, axes, _SCALE)
    else:
        _block(walk, axes[first:], node)
        _tie_affine(walk, node, axes)
    return walk.give(node.outputs[0], axes, zero=walk.is_zero(node.inputs[0]))


_SKIP_SCALE = 2
_SUM = 3
"""Which output of a SkipSimplifiedLayerNormalization is what it normalizes."""


@rule("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def _skip_rms_norm(walk: Walk, node: ir.Node) -> None:
    """The mean of squares of a sum: of the first two inputs, and of a bias where there is one."""
    shape = walk.sizes.of(node.outputs[0])
    added = [value for index, value in enumerate(node.inputs) if value is not None and index != _SKIP_SCALE]
    axes = None if shape is None else broadcast(walk, added, shape)
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    zero = all(walk.is_zero(value) and spans(walk, value, axes) for value in added)
    is_read_on = any(output.uses() or output.is_graph_output() for output in node.outputs[1:_SUM])
    if zero and not is_read_on:
        _tie_rescaled(walk, node, axes, _SKIP_SCALE)
    else:
        _block(walk, axes[-1:], node)
    for output in (*node.outputs[:1], *node.outputs[_SUM:]):
        walk.give(output, axes, zero=zero)
    return None


def _tie_rescaled(walk: Walk, node: ir.Node, axes: Axes, index: int) -> None:
    """Let channels on the last axis go with those of the scale, input `index`, which must be stored to be rescaled."""
    own = walk.known_axes(node.inputs[index])
    if not walk.is_constant(node.inputs[index]) or own is None or len(own[-1]) != len(axes[-1]):
        _block(walk, axes[-1:], node)
        return
    tie(walk, own, axes)
    walk.later(node, partial(_rescale, labels=axes[-1], index=index))


def _rescale(removal: Removal, node: ir.Node, *, labels: Labels, index: int) -> None:
    """With n channels x / sqrt(sum / n + e) is sqrt(n / k) x / sqrt(sum / k + e n / k) with the k left."""
    kept = removal.kept(labels)
    ratio = len(kept) / int(kept.sum())
    if ratio == 1:
        return
    removal.scale_constant(removal.own_constant(node, index), math.sqrt(ratio))
    is_said = "epsilon" in node.attributes
    epsilon = node.attributes["epsilon"].as_float() if is_said else _EPSILON.get(node.op_type, 1e-5)
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon * ratio)


@rule("LRN")
def _local_response(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is not None:
        walk.block(axes[_CHANNELS], f"{called(node)} looks at neighbouring channels")
    walk.give(node.outputs[0], axes, zero=walk.is_zero(node.inputs[0]))


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is not None:
        walk.block(axes[attribute(node, "axis", -1)], f"{called(node)} runs over it")
    walk.give(node.outputs[0], axes)


@rule("LpNormalization")
def _norm(walk: Walk, node: ir.Node) -> None:
    """Divided by a norm, to which zeros add nothing."""
    axes = walk.known_axes(node.inputs[0])
    if axes is not None and not walk.is_zero(node.inputs[0]):
        walk.block(axes[attribute(node, "axis", -1)], f"{called(node)} runs over it")
    walk.give(node.outputs[0], axes, zero=walk.is_zero(node.inputs[0]))
