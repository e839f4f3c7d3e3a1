"""Pooling and resizing: channels pass, positions are mixed."""

import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.targets import set_target
from worker.engine.graph.channels.unions import Axes
from worker.engine.graph.channels.walk import Walk, called

_SIZES = 3
_CHANNELS = 1
_FIRST_POSITION = 2


def _pooled(walk: Walk, node: ir.Node, output: ir.Value) -> Axes | None:
    """The labels of an output whose channels are those of the first input, each alone, several positions at a time."""
    reason = f"it is a position, and {called(node)} looks at several"
    axes, made = walk.known_axes(node.inputs[0]), walk.stuck(output, reason)
    if axes is None or made is None:
        return None
    for labels in axes[_FIRST_POSITION:]:
        walk.block(labels, reason)
    return [*axes[:_FIRST_POSITION], *made[_FIRST_POSITION:]]


@rule("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool")
def _pool(walk: Walk, node: ir.Node) -> None:
    walk.give(node.outputs[0], _pooled(walk, node, node.outputs[0]), zero=walk.is_zero(node.inputs[0]))


@rule("MaxPool")
def _max_pool(walk: Walk, node: ir.Node) -> None:
    """Its indices count channels too: only MaxUnpool, which counts the same ones, may read them."""
    for index, output in enumerate(node.outputs):
        walk.give(output, _pooled(walk, node, output), zero=index == 0 and walk.is_zero(node.inputs[0]))
    axes = walk.known_axes(node.inputs[0])
    for output in node.outputs[1:]:
        is_for_unpooling = all(user.op_type == "MaxUnpool" and index == 1 for user, index in output.uses())
        if axes is not None and (output.is_graph_output() or not is_for_unpooling):
            walk.block(axes[_CHANNELS], f"{called(node)} gives indices that count it")


@rule("MaxUnpool")
def _max_unpool(walk: Walk, node: ir.Node) -> None:
    """Zeros where nothing is put."""
    axes, indices = (walk.known_axes(value) for value in node.inputs[:2])
    made = _pooled(walk, node, node.outputs[0])
    if made is None or axes is None or indices is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    for labels, own in zip(axes, indices, strict=True):
        walk.unite(labels, own)
    if not _counts_alike(walk, node):
        walk.block(axes[_CHANNELS], f"{called(node)} reads indices that count it in another shape")
    return walk.give(node.outputs[0], made, zero=walk.is_zero(node.inputs[0]))


def _counts_alike(walk: Walk, node: ir.Node) -> bool:
    """Whether indices come from a MaxPool of as many positions as there are again."""
    pool = None if node.inputs[1] is None else node.inputs[1].producer()
    whole, again = walk.sizes.of(pool.inputs[0] if pool else None), walk.sizes.of(node.outputs[0])
    return whole is not None and again is not None and whole[_FIRST_POSITION:] == again[_FIRST_POSITION:]


@rule("Resize")
def _resize(walk: Walk, node: ir.Node) -> None:
    """Axes whose size stays pass; interpolation mixes the others. `sizes` may name channels too."""
    axes, made = walk.known_axes(node.inputs[0]), walk.stuck(node.outputs[0], f"{called(node)} interpolates along it")
    if axes is None or made is None:
        return walk.give(node.outputs[0], None)
    passed = list(axes)
    for place in _resized(walk, node, len(axes)):
        walk.block(axes[place], f"{called(node)} interpolates along it")
        passed[place] = made[place]
    if "axes" not in node.attributes and len(node.inputs) > _SIZES and node.inputs[_SIZES] is not None:
        walk.later(node, _set_sizes)
    return walk.give(node.outputs[0], passed, zero=walk.is_zero(node.inputs[0]))


def _resized(walk: Walk, node: ir.Node, rank: int) -> list[int]:
    """The axes that are named, or else all whose size changes for some input."""
    if "axes" in node.attributes:
        return [place % rank for place in node.attributes["axes"].as_ints()]
    pairs = [(sizes(node.inputs[0]), sizes(node.outputs[0])) for sizes in (walk.sizes.of, walk.sizes.again)]
    return [
        place
        for place in range(rank)
        if any(before is None or after is None or before[place] != after[place] for before, after in pairs)
    ]


def _set_sizes(removal: Removal, node: ir.Node) -> None:
    set_target(removal, node, _SIZES, free=None)
