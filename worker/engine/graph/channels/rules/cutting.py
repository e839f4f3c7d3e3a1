"""Operators that take indices of a tensor by constant numbers: what is left of them lies elsewhere, and has others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, attribute, called
from worker.engine.graph.edit import owner_of

_SIZES, _INDICES = 1, 1
_STARTS, _ENDS, _PLACES, _STEPS = 1, 2, 3, 4
"""Inputs of Split, Gather and Slice."""


@rule("Split")
def _split(walk: Walk, node: ir.Node) -> None:
    axes, axis = walk.known_axes(node.inputs[0]), attribute(node, "axis", 0)
    sizes = [shape[axis] for output in node.outputs if (shape := walk.sizes.of(output)) is not None]
    if axes is None or len(sizes) < len(node.outputs):
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    if not walk.is_fixed(node.inputs[0], axis):
        walk.block(axes[axis], f"{called(node)} cuts it in parts that depend on the input")
    for output, part in zip(node.outputs, np.split(axes[axis], np.cumsum(sizes)[:-1]), strict=True):
        made = list(axes)
        made[axis] = part
        walk.give(output, made, zero=walk.is_zero(node.inputs[0]))
    return walk.later(node, partial(_set_split, axis=axis))


def _set_split(removal: Removal, node: ir.Node, *, axis: int) -> None:
    if removal.loses(node.inputs[0], axis):
        node.attributes.pop("num_outputs", None)
        removal.set_integers(node, _SIZES, [removal.size(output, axis) for output in node.outputs])


@dataclass(frozen=True)
class _Cut:
    """What Slice takes of an axis, as Python writes it, which is as ONNX does. Bounds that are computed are None."""

    axis: int
    taken: slice

    @property
    def is_known(self) -> bool:
        """Whether the bounds are the same for all inputs."""
        return self.taken.start is not None


@rule("Slice")
def _slice(walk: Walk, node: ir.Node) -> None:
    value, reason = node.inputs[0], f"what {called(node)} takes of it depends on the input"
    axes, made = walk.known_axes(value), walk.stuck(node.outputs[0], reason)
    cuts = None if axes is None else _read_cuts(walk, node, len(axes))
    if axes is None or made is None or cuts is None:
        return walk.give_up(node, reason)
    passed, is_known = list(axes), all(cut.is_known for cut in cuts)
    for cut in cuts:
        if is_known and walk.is_fixed(value, cut.axis):
            passed[cut.axis] = axes[cut.axis][cut.taken]
        else:
            walk.block(axes[cut.axis], reason)
            passed[cut.axis] = made[cut.axis]
    if is_known:
        walk.later(node, partial(_cut, cuts=cuts, axes=axes))
    return walk.give(node.outputs[0], passed, zero=walk.is_zero(value))


def _read_cuts(walk: Walk, node: ir.Node, rank: int) -> list[_Cut] | None:
    """The axes of which Slice does not take all; None where it is computed which they are."""
    starts, ends, places, steps = (walk.constant(node, index) for index in (_STARTS, _ENDS, _PLACES, _STEPS))
    count = (walk.sizes.of(node.inputs[_STARTS]) or (0,))[0]
    if not _has(node, _PLACES):
        places = np.arange(count)
    if not _has(node, _STEPS):
        steps = np.ones(count, np.int64)
    if not count or places is None or steps is None:
        return None
    unknown = [None] * count
    bounds = (unknown, unknown) if starts is None or ends is None else (starts.tolist(), ends.tolist())
    cuts = [
        _Cut(axis, slice(*taken))
        for axis, *taken in zip((places % rank).tolist(), *bounds, steps.tolist(), strict=True)
    ]
    return [cut for cut in cuts if not _takes_all(walk, node, cut)]


def _has(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _takes_all(walk: Walk, node: ir.Node, cut: _Cut) -> bool:
    """Whether all indices are taken in their order, whatever the sizes of free dimensions."""
    pairs = [(sizes(node.inputs[0]), sizes(node.outputs[0])) for sizes in (walk.sizes.of, walk.sizes.again)]
    return cut.taken.step > 0 and all(
        before and after and before[cut.axis] == after[cut.axis] for before, after in pairs
    )


def _cut(removal: Removal, node: ir.Node, *, cuts: Sequence[_Cut], axes: Axes) -> None:
    """What is left of the indices is a range again, or else each is taken by its own number."""
    if all(removal.kept(axes[cut.axis]).all() for cut in cuts):
        return
    ranges, gathered = list[tuple[int, int, int, int]](), dict[int, NDArray[np.int64]]()
    for cut in cuts:
        labels, taken = axes[cut.axis], np.arange(len(axes[cut.axis]))[cut.taken]
        wanted = removal.new_places(labels)[taken][removal.kept(labels[taken])]
        if removal.kept(labels).all():
            ranges.append((cut.taken.start, cut.taken.stop, cut.axis, cut.taken.step))
        elif (np.diff(wanted) == 1).all():
            ranges.append((int(wanted[0]), int(wanted[-1]) + 1, cut.axis, 1))
        else:
            gathered[cut.axis] = wanted
    nodes = list(_write_cuts(removal, node, ranges, gathered))
    removal.editor.replace(node, nodes, nodes[-1].outputs)


def _write_cuts(
    removal: Removal,
    node: ir.Node,
    ranges: Sequence[tuple[int, int, int, int]],
    gathered: Mapping[int, NDArray[np.int64]],
) -> Iterator[ir.Node]:
    """A Gather for each axis in `gathered`, and a Slice for all (start, end, axis, step) in `ranges`."""
    value, name = node.inputs[0], f"{node.outputs[0].name}_taken"
    for axis, indices in gathered.items():
        stored = removal.editor.initializer(owner_of(node), f"{node.name}_indices", indices)
        taken = removal.editor.node("Gather", [value, stored], [name], [ir.AttrInt64("axis", axis)])
        value = taken.outputs[0]
        yield taken
    if ranges:
        columns = [np.array(column, np.int64) for column in zip(*ranges, strict=True)]
        numbers = [removal.editor.initializer(owner_of(node), f"{node.name}_range", column) for column in columns]
        yield removal.editor.node("Slice", [value, *numbers], [name])


@rule("Gather")
def _gather(walk: Walk, node: ir.Node) -> None:
    axes, taken = walk.known_axes(node.inputs[0]), walk.constant(node, _INDICES)
    if axes is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    axis, zero = attribute(node, "axis", 0) % len(axes), walk.is_zero(node.inputs[0])
    if taken is None or taken.ndim > 1:
        return _look_up(walk, node, axes, axis)
    if taken.ndim == 0:
        walk.block(axes[axis][[int(taken)]], f"{called(node)} takes this one alone")
        made = [*axes[:axis], *axes[axis + 1 :]]
    else:
        made = [*axes[:axis], axes[axis][taken], *axes[axis + 1 :]]
    walk.later(node, partial(_set_indices, labels=axes[axis], taken=taken))
    return walk.give(node.outputs[0], made, zero=zero)


def _look_up(walk: Walk, node: ir.Node, axes: Axes, axis: int) -> None:
    """Rows are looked up by computed numbers: they stay."""
    walk.block(axes[axis], f"{called(node)} looks it up by computed numbers")
    indices = walk.known_axes(node.inputs[_INDICES])
    made = None
    if indices is not None:
        looked_up = [walk.blocked(len(labels), f"it counts what {called(node)} looks up") for labels in indices]
        made = [*axes[:axis], *looked_up, *axes[axis + 1 :]]
    walk.give(node.outputs[0], made, zero=walk.is_zero(node.inputs[0]))


def _set_indices(removal: Removal, node: ir.Node, *, labels: Labels, taken: NDArray[Any]) -> None:
    if removal.kept(labels).all():
        return
    left = taken if taken.ndim == 0 else taken[removal.kept(labels[taken])]
    indices = np.asarray(removal.new_places(labels)[left], np.int64)
    node.replace_input_with(_INDICES, removal.editor.initializer(owner_of(node), f"{node.name}_indices", indices))
