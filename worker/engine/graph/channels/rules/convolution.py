"""Convolutions. X [N, C, ...], W [O, I, ...] with I = C / groups; transposed ones W [C, O / groups, ...]."""

import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, attribute, called

_BIAS = 2
_FIRST_POSITION = 2


@rule("Conv")
def _convolution(walk: Walk, node: ir.Node) -> None:
    inputs, weight = (walk.known_axes(value) for value in node.inputs[:2])
    if inputs is None or weight is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    groups = attribute(node, "group", 1)
    channels, outputs, summed = inputs[1], weight[0], weight[1]
    if len(summed) < groups:
        _tie_whole_groups(walk, channels, outputs, groups)
        walk.block(summed, f"it is one of the inputs of a group of {called(node)}")
        walk.later(node, _regroup)
    else:
        walk.unite(walk.unite_columns(channels, groups), summed)
        if groups > 1:
            walk.unite_columns(outputs, groups)
    return _finish(walk, node, weight, outputs)


@rule("ConvTranspose")
def _transposed(walk: Walk, node: ir.Node) -> None:
    inputs, weight = (walk.known_axes(value) for value in node.inputs[:2])
    if inputs is None or weight is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    groups = attribute(node, "group", 1)
    channels, outputs = inputs[1], weight[1]
    walk.unite(channels, weight[0])
    if groups > 1:
        outputs = walk.unions.fresh(groups * len(weight[1]))
        if len(channels) // groups < groups:
            _tie_whole_groups(walk, channels, outputs, groups)
            walk.block(weight[1], f"it is one of the outputs of a group of {called(node)}")
            walk.later(node, _regroup)
        else:
            walk.unite_columns(channels, groups)
            walk.unite(walk.unite_columns(outputs, groups), weight[1])
    return _finish(walk, node, weight, outputs)


def _tie_whole_groups(walk: Walk, channels: Labels, outputs: Labels, groups: int) -> None:
    """A group goes with all its inputs and outputs: it has few of them."""
    walk.unite(walk.unite_rows(channels, groups), walk.unite_rows(outputs, groups))


def _regroup(removal: Removal, node: ir.Node) -> None:
    """As many groups as are left: channels by those of a group, which are on the second axis of W."""
    value = node.inputs[0] if node.op_type == "Conv" else node.outputs[0]
    node.attributes["group"] = ir.AttrInt64("group", removal.size(value, 1) // removal.size(node.inputs[1], 1))


def _finish(walk: Walk, node: ir.Node, weight: Axes, outputs: Labels) -> None:
    """Tie the bias, and give the output its labels: `outputs` are its channels."""
    _require_zero(walk, node, weight)
    for kernel in weight[_FIRST_POSITION:]:
        walk.block(kernel, f"it is a position of the kernel of {called(node)}")
    bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    added = walk.known_axes(bias)
    if added is not None:
        walk.unite(added[0], outputs)
    others = _pass_others(walk, node, weight)
    if others is None:
        return walk.give(node.outputs[0], None)
    has_no_bias, weight_is_zero = bias is None, walk.is_zero(node.inputs[1])
    zero_along_channels = (weight_is_zero and (has_no_bias or walk.is_zero(bias))) or not walk.is_free(outputs)
    zero_along_others = (walk.is_zero(node.inputs[0]) and has_no_bias) or not any(map(walk.is_free, others))
    samples, *positions = others
    return walk.give(node.outputs[0], [samples, outputs, *positions], zero=zero_along_channels and zero_along_others)


def _pass_others(walk: Walk, node: ir.Node, weight: Axes) -> Axes | None:
    """The labels of the output's samples and positions; positions stay where the kernel looks at several."""
    reason = f"it is a position, and {called(node)} looks at several"
    inputs, made = walk.known_axes(node.inputs[0]), walk.stuck(node.outputs[0], reason)
    if inputs is None or made is None:
        return None
    others = [inputs[0]]
    strides = node.attributes["strides"].as_ints() if "strides" in node.attributes else [1] * len(weight)
    for place in range(_FIRST_POSITION, len(inputs)):
        is_pointwise = len(weight[place]) == strides[place - _FIRST_POSITION] == 1
        if is_pointwise and len(made[place]) == len(inputs[place]):
            others.append(inputs[place])
        else:
            walk.block(inputs[place], reason)
            others.append(made[place])
    return others


def _require_zero(walk: Walk, node: ir.Node, weight: Axes) -> None:
    """Sums over channels lose nothing where the weight or the input is zero at those masked."""
    if not any(map(walk.is_zero, node.inputs[:2])):
        for labels in weight[:2]:
            walk.block(labels, f"{called(node)} computes with it, and masked it would not be zero")
