"""Shapes as numbers, and tensors that are made or widened to a shape."""

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.sizes import ShapeOf
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.targets import pin_shape, set_target
from worker.engine.graph.channels.unions import Labels
from worker.engine.graph.channels.walk import Walk, called


@rule("Shape")
def _shape(walk: Walk, node: ir.Node) -> None:
    """Arithmetic goes on with the sizes from before; what makes tensors of them is mended by itself."""
    if walk.known_axes(node.inputs[0]) is not None:
        walk.later(node, pin_shape)
    walk.give(node.outputs[0], walk.stuck(node.outputs[0], "it is a size"))


@rule("Size")
def _size(walk: Walk, node: ir.Node) -> None:
    walk.give_up(node, f"{called(node)} counts it")


@rule("Expand")
def _expand(walk: Walk, node: ir.Node) -> None:
    """Axes that grow from one index hold copies, of which some may go."""
    axes, shape = walk.known_axes(node.inputs[0]), walk.sizes.of(node.outputs[0])
    if axes is None or shape is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    own = [*[np.zeros(1, np.int64)] * (len(shape) - len(axes)), *axes]
    made = [
        labels if len(labels) == size else _copies(walk, node, place, size)
        for place, (labels, size) in enumerate(zip(own, shape, strict=True))
    ]
    grows = any(walk.is_free(new) for old, new in zip(own, made, strict=True) if new is not old)
    walk.later(node, _set_widened)
    return walk.give(node.outputs[0], made, zero=walk.is_zero(node.inputs[0]) and not grows)


def _set_widened(removal: Removal, node: ir.Node) -> None:
    set_target(removal, node, free=None)


def _copies(walk: Walk, node: ir.Node, place: int, size: int) -> Labels:
    if walk.is_fixed(node.outputs[0], place):
        return walk.unions.fresh(size)
    return walk.blocked(size, "how many there are depends on the input")


@rule("ConstantOfShape")
def _fill(walk: Walk, node: ir.Node) -> None:
    """Every index holds the same number."""
    output, shape = node.outputs[0], walk.sizes.of(node.outputs[0])
    made = None if shape is None else [_copies(walk, node, place, size) for place, size in enumerate(shape)]
    value = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1)
    walk.later(node, _set_filled)
    walk.give(output, made, zero=not value.any())


def _set_filled(removal: Removal, node: ir.Node) -> None:
    set_target(removal, node, 0, free=None)


@rule("Tile")
def _tile(walk: Walk, node: ir.Node) -> None:
    """An index goes with all its repetitions, where there are as many whatever the input."""
    axes = walk.known_axes(node.inputs[0])
    first, second = (_repeats(node, sizes) for sizes in (walk.sizes.of, walk.sizes.again))
    if axes is None or first is None or second is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    for labels, repeats, others in zip(axes, first, second, strict=True):
        if repeats != others:
            walk.block(labels, f"{called(node)} repeats it")
    made = [np.tile(labels, repeats) for labels, repeats in zip(axes, first, strict=True)]
    return walk.give(node.outputs[0], made, zero=walk.is_zero(node.inputs[0]))


def _repeats(node: ir.Node, shape_of: ShapeOf) -> list[int] | None:
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if before is None or after is None or 0 in before:
        return None
    return [new // old for old, new in zip(before, after, strict=True)]


@rule("Range", "EyeLike", "OneHot", "NonZero", "RandomNormal", "RandomUniform")
def _count(walk: Walk, node: ir.Node) -> None:
    """Numbers made of sizes and indices."""
    walk.give_up(node, f"{called(node)} counts it")
