"""Reductions: over channels only where masked ones add nothing, or where the count can be made up for."""

from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, attribute, called
from worker.engine.graph.edit import owner_of

_ADDS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMean"})
_LOGARITHMS = frozenset({"ReduceLogSum", "ReduceLogSumExp"})


@rule(*_ADDS, "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")
def _reduce(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    reduced = None if axes is None else _reduced_axes(walk, node, len(axes))
    if axes is None or reduced is None:
        return walk.give_up(node, f"the axes of {called(node)} are not known")
    zero = walk.is_zero(node.inputs[0])
    summed = [axes[axis] for axis in sorted(reduced) if walk.is_free(axes[axis])]
    if node.op_type not in _ADDS or not zero:
        for labels in summed:
            walk.block(labels, f"{called(node)} runs over it")
    elif node.op_type == "ReduceMean" and summed:
        walk.later(node, partial(_make_up, summed=summed))
    made = _without(walk, node, axes, reduced)
    return walk.give(node.outputs[0], made, zero=zero and node.op_type not in _LOGARITHMS)


def _without(walk: Walk, node: ir.Node, axes: Axes, reduced: Collection[int]) -> Axes:
    """What is left of axes once some are reduced: one index of each, or none."""
    if not attribute(node, "keepdims", 1):
        return [labels for axis, labels in enumerate(axes) if axis not in reduced]
    single = walk.blocked(1, "there is only one")
    return [single if axis in reduced else labels for axis, labels in enumerate(axes)]


def _reduced_axes(walk: Walk, node: ir.Node, rank: int) -> set[int] | None:
    given = walk.constant(node, 1)
    if "axes" in node.attributes:
        given = np.array(node.attributes["axes"].as_ints())
    is_left_out = len(node.inputs) < 2 or node.inputs[1] is None  # noqa: PLR2004 - the second input
    if given is None and not is_left_out:
        return None
    if given is None or not given.size:
        return set() if attribute(node, "noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in given.reshape(-1)}


def _make_up(removal: Removal, node: ir.Node, *, summed: Sequence[Labels]) -> None:
    """The mean of fewer is larger by as much as there are fewer: those that went were 0."""
    ratio = float(np.prod([removal.kept(labels).mean() for labels in summed]))
    if ratio == 1:
        return
    editor, made = removal.editor, node.outputs[0]
    factor = editor.initializer(owner_of(node), f"{node.name}_kept", np.array(ratio, removal.float_type(made)))
    mean = editor.node(node.op_type, node.inputs, [f"{made.name}_of_kept"], list(node.attributes.values()))
    product = editor.node("Mul", [mean.outputs[0], factor], [f"{made.name}_of_all"])
    editor.replace(node, [mean, product], product.outputs)


@rule("ArgMax", "ArgMin")
def _find(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    axis = attribute(node, "axis", 0) % len(axes)
    walk.block(axes[axis], f"{called(node)} runs over it")
    return walk.give(node.outputs[0], _without(walk, node, axes, [axis]))


@rule("CumSum", "CumProd", "TopK", "Trilu")
def _along_axes(walk: Walk, node: ir.Node) -> None:
    """Positions along some axes mean something: they stay. The others pass."""
    axes, reason = walk.known_axes(node.inputs[0]), f"{called(node)} runs over it"
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    places = _places(walk, node, len(axes))
    for place in places:
        walk.block(axes[place], reason)
    for output in node.outputs:
        made = walk.stuck(output, reason)
        if made is not None:
            made = [new if place in places else old for place, (old, new) in enumerate(zip(axes, made, strict=True))]
        walk.give(output, made)
    return None


def _places(walk: Walk, node: ir.Node, rank: int) -> Collection[int]:
    """The axes along which a node runs; all where that is computed."""
    match node.op_type:
        case "TopK":
            return [attribute(node, "axis", -1) % rank]
        case "Trilu":
            return [rank - 2, rank - 1]
        case _:
            axis = walk.constant(node, 1)
            return range(rank) if axis is None else [int(axis.reshape(-1)[0]) % rank]
