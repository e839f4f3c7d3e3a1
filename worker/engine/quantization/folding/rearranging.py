"""Rules of operators that only move elements: labels move with them."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.graph.shapes import Dims, dims
from worker.engine.quantization.folding.flow import Flow, Rule
from worker.engine.quantization.folding.labels import Labels, concatenated, reshaped, varies, with_rank
from worker.engine.quantization.folding.operands import constant, is_given, rank_of
from worker.engine.quantization.nodes import attribute


def _reshape(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """Reshape, Flatten, Squeeze and Unsqueeze, by the shapes around them."""
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or after is None:
        return None
    if node.op_type == "Reshape" and not attribute(node, "allowzero", 0):
        before, after = _with_copies(before, after, node)
    labels = reshaped(flow.of(node.inputs[0]), before, after)
    return None if labels is None else [labels]


def _with_copies(before: Dims, after: Dims, node: ir.Node) -> tuple[Dims, Dims]:
    """A target of 0 copies the dimension: unknown ones get a name for it."""
    target = constant(node, 1)
    before, after = list(before), list(after)
    for axis, size in enumerate([] if target is None else target.tolist()):
        if size == 0 and before[axis] is None:
            before[axis] = f"copied {axis}"
        if size == 0:
            after[axis] = before[axis]
    return before, after


def _transpose(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    rank = rank_of(node.inputs[0])
    labels = None if rank is None else with_rank(flow.of(node.inputs[0]), rank)
    if labels is None:
        return None
    return [labels.transpose(node.attributes["perm"].as_ints() if "perm" in node.attributes else None)]


def _concat(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    shapes = [dims(value) for value in node.inputs]
    rank = rank_of(node.outputs[0])
    if rank is None or any(shape is None for shape in shapes):
        return None
    axis = int(attribute(node, "axis", 0)) % rank
    parts = [with_rank(flow.of(value), rank) for value in node.inputs]
    full = [part for part in parts if part is not None]
    if not any(varies(part, axis, rank) for part in full):
        return [flow.join(full)]
    sizes = [shape[axis] for shape in shapes if shape is not None]
    known = [size for size in sizes if isinstance(size, int)]
    return [concatenated(full, axis, known)] if len(known) == len(parts) == len(full) else None


def _split(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    rank, labels = rank_of(node.inputs[0]), flow.of(node.inputs[0])
    if rank is None:
        return None
    axis = int(attribute(node, "axis", 0)) % rank
    if not varies(labels, axis, rank):
        return [labels] * len(node.outputs)
    shapes, full = [dims(value) for value in node.outputs], with_rank(labels, rank)
    sizes = [shape[axis] for shape in shapes if shape is not None]
    known = [size for size in sizes if isinstance(size, int)]
    if full is None or len(known) != len(node.outputs):
        return None
    return np.split(full, np.cumsum(known)[:-1], axis)


def _slice(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    rank, labels = rank_of(node.inputs[0]), flow.of(node.inputs[0])
    starts, ends = constant(node, 1), constant(node, 2)
    axes, steps = constant(node, 3), constant(node, 4)
    full = None if rank is None else with_rank(labels, rank)
    if rank is None or full is None or (axes is None and (is_given(node, 3) or starts is None)):
        return None
    chosen = range(0 if starts is None else len(starts)) if axes is None else (int(axis) % rank for axis in axes)
    for place, axis in enumerate(chosen):
        if full.shape[axis] == 1:
            continue
        if starts is None or ends is None or is_given(node, 4) != (steps is not None):
            return None
        step = 1 if steps is None else int(steps[place])
        if step < 1:
            return None
        kept = np.arange(full.shape[axis])[int(starts[place]) : int(ends[place]) : step]
        full = full.take(kept, axis)
    return [full]


def _gather(flow: Flow, node: ir.Node) -> Sequence[Labels] | None:
    """Along an axis of which all elements have the same labels."""
    ranks = [rank_of(value) for value in node.inputs]
    if ranks[0] is None or ranks[1] is None:
        return None
    labels, axis = with_rank(flow.of(node.inputs[0]), ranks[0]), int(attribute(node, "axis", 0)) % ranks[0]
    if labels is None or labels.shape[axis] > 1:
        return None
    return [labels.reshape(labels.shape[:axis] + (1,) * ranks[1] + labels.shape[axis + 1 :])]


REARRANGING: Mapping[str, Rule] = {
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}
"""By operator of the default domain."""
