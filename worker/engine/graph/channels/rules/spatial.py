"""Operators that sample positions of images: channels pass, each on its own."""

import onnx_ir as ir

from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Labels
from worker.engine.graph.channels.walk import Walk, attribute, called


@rule("GridSample", "MaxRoiPool", "RoiAlign")
def _sample(walk: Walk, node: ir.Node) -> None:
    """X [N, C, ...] at places that the other inputs name."""
    value, output = node.inputs[0], node.outputs[0]
    axes, made = walk.known_axes(value), walk.stuck(output, f"it is a position that {called(node)} makes")
    if axes is None or made is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    _block_but_channels(walk, node, 0)
    for index in range(1, len(node.inputs)):
        _block_all(walk, node, index)
    return walk.give(output, [made[0], axes[1], *made[2:]], zero=walk.is_zero(value))


@rule("DeformConv")
def _deformable(walk: Walk, node: ir.Node) -> None:
    """X [N, C, H, W], W [O, C, h, w], offsets, bias [O], mask; each group of offsets moves as many channels."""
    inputs, weight, output = walk.known_axes(node.inputs[0]), walk.known_axes(node.inputs[1]), node.outputs[0]
    made = walk.stuck(output, f"it is a position, and {called(node)} looks at several")
    if inputs is None or weight is None or made is None or attribute(node, "group", 1) > 1:
        return walk.give_up(node, f"{called(node)} has groups, or the shapes around it are not known")
    walk.unite(inputs[1], weight[1])
    walk.unite_columns(inputs[1], attribute(node, "offset_group", 1))
    if not any(map(walk.is_zero, node.inputs[:2])):
        walk.block(inputs[1], f"{called(node)} computes with it, and masked it would not be zero")
    for labels in weight[2:]:
        walk.block(labels, f"it is a position of the kernel of {called(node)}")
    _block_but_channels(walk, node, 0)
    for index in (2, 4):
        _block_all(walk, node, index)
    bias = node.inputs[3] if len(node.inputs) > 3 else None  # noqa: PLR2004 - the fourth input
    if bias is not None and (axes := walk.axes(bias)) is not None:
        walk.unite(axes[0], weight[0])
    zero = walk.is_zero(node.inputs[1]) and (bias is None or walk.is_zero(bias))
    return walk.give(output, [made[0], weight[0], *made[2:]], zero=zero)


@rule("Col2Im")
def _overlay(walk: Walk, node: ir.Node) -> None:
    """Columns [N, C * positions of a block, L] to an image [N, C, ...]: a channel goes with its positions."""
    output = node.outputs[0]
    axes, made = walk.known_axes(node.inputs[0]), walk.stuck(output, f"it is a position that {called(node)} makes")
    if axes is None or made is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    _block_but_channels(walk, node, 0)
    channels: Labels = walk.unite_rows(axes[1], len(made[1]))
    return walk.give(output, [made[0], channels, *made[2:]], zero=walk.is_zero(node.inputs[0]))


@rule("CenterCropPad")
def _crop(walk: Walk, node: ir.Node) -> None:
    axes, made = walk.known_axes(node.inputs[0]), walk.stuck(node.outputs[0], f"{called(node)} cuts or pads it")
    if axes is None or made is None or "axes" not in node.attributes:
        return walk.give_up(node, f"{called(node)} cuts or pads it")
    chosen = {place % len(axes) for place in node.attributes["axes"].as_ints()}
    for place in chosen:
        walk.block(axes[place], f"{called(node)} cuts or pads it")
    passed = [new if place in chosen else old for place, (old, new) in enumerate(zip(axes, made, strict=True))]
    return walk.give(node.outputs[0], passed, zero=walk.is_zero(node.inputs[0]))


@rule("Det")
def _determinant(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    for labels in axes[-2:]:
        walk.block(labels, f"{called(node)} runs over it")
    return walk.give(node.outputs[0], axes[:-2])


def _block_but_channels(walk: Walk, node: ir.Node, index: int) -> None:
    for place, labels in enumerate(walk.known_axes(node.inputs[index]) or ()):
        if place != 1:
            walk.block(labels, f"it is a position, and {called(node)} looks at several")


def _block_all(walk: Walk, node: ir.Node, index: int) -> None:
    for labels in walk.known_axes(node.inputs[index] if index < len(node.inputs) else None) or ():
        walk.block(labels, f"{called(node)} finds positions by it")
