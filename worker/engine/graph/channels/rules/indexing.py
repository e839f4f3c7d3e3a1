"""Operators that read or write at computed indices: along those axes nothing can go, the others pass."""

from collections.abc import Collection

import onnx_ir as ir

from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes
from worker.engine.graph.channels.walk import Walk, attribute, called


def _block(walk: Walk, node: ir.Node, axes: Axes, places: Collection[int]) -> None:
    for place in places:
        walk.block(axes[place], f"{called(node)} finds it by computed numbers")


def _unknown(node: ir.Node) -> str:
    return f"the shapes around {called(node)} are not known"


def _unite_beside(walk: Walk, node: ir.Node, data: Axes, others: Axes, axis: int) -> None:
    """Tie two tensors along all axes but one, where the indices are looked up; what is shorter reads only the first."""
    for place, (labels, own) in enumerate(zip(data, others, strict=True)):
        if place != axis and len(labels) == len(own):
            walk.unite(labels, own)
        else:
            _block(walk, node, (labels, own), (0, 1))


@rule("GatherElements")
def _gather_elements(walk: Walk, node: ir.Node) -> None:
    data, indices = (walk.known_axes(value) for value in node.inputs)
    if data is None or indices is None:
        return walk.give_up(node, _unknown(node))
    _unite_beside(walk, node, data, indices, attribute(node, "axis", 0) % len(data))
    return walk.give(node.outputs[0], indices, zero=walk.is_zero(node.inputs[0]))


@rule("ScatterElements", "Scatter")
def _scatter_elements(walk: Walk, node: ir.Node) -> None:
    data, *others = (walk.known_axes(value) for value in node.inputs)
    if data is None or None in others:
        return walk.give_up(node, _unknown(node))
    for each in others:
        _unite_beside(walk, node, data, each or (), attribute(node, "axis", 0) % len(data))
    return walk.give(node.outputs[0], data, zero=walk.is_zero(node.inputs[0]) and walk.is_zero(node.inputs[2]))


@rule("GatherND")
def _gather_slices(walk: Walk, node: ir.Node) -> None:
    """Indices [..., K] choose slices of data along K axes behind those of the batch, which both have."""
    data, indices = (walk.known_axes(value) for value in node.inputs)
    if data is None or indices is None:
        return walk.give_up(node, _unknown(node))
    batch = attribute(node, "batch_dims", 0)
    end = batch + len(indices[-1])
    for labels, own in zip(data[:batch], indices[:batch], strict=True):
        walk.unite(labels, own)
    _block(walk, node, data, range(batch, end))
    _block(walk, node, indices, range(batch, len(indices)))
    return walk.give(node.outputs[0], [*indices[:-1], *data[end:]], zero=walk.is_zero(node.inputs[0]))


@rule("ScatterND")
def _scatter_slices(walk: Walk, node: ir.Node) -> None:
    """Indices [..., K] choose slices of data along its first K axes, for which updates come in their order."""
    data, indices, updates = (walk.known_axes(value) for value in node.inputs)
    if data is None or indices is None or updates is None:
        return walk.give_up(node, _unknown(node))
    chosen, counted = len(indices[-1]), len(indices) - 1
    _block(walk, node, data, range(chosen))
    _block(walk, node, indices, range(len(indices)))
    _block(walk, node, updates, range(counted))
    for labels, own in zip(data[chosen:], updates[counted:], strict=True):
        walk.unite(labels, own)
    return walk.give(node.outputs[0], data, zero=walk.is_zero(node.inputs[0]) and walk.is_zero(node.inputs[2]))


@rule("TensorScatter")
def _scatter_entries(walk: Walk, node: ir.Node) -> None:
    """Updates overwrite a run of entries of a cache, for every sample [N] from a place of its own on."""
    cache, updates, *starts = (walk.known_axes(value) for value in node.inputs)
    if cache is None or updates is None:
        return walk.give_up(node, _unknown(node))
    _unite_beside(walk, node, cache, updates, attribute(node, "axis", -2) % len(cache))
    for axes in starts:
        walk.unite(cache[0], axes[0] if axes else cache[0])
    return walk.give(node.outputs[0], cache, zero=all(map(walk.is_zero, node.inputs[:2])))


@rule("ReverseSequence")
def _reverse(walk: Walk, node: ir.Node) -> None:
    axes = walk.known_axes(node.inputs[0])
    if axes is None:
        return walk.give_up(node, _unknown(node))
    _block(walk, node, axes, (attribute(node, "batch_axis", 1), attribute(node, "time_axis", 0)))
    for labels in walk.known_axes(node.inputs[1]) or ():
        walk.block(labels, f"{called(node)} has one for every sample")
    return walk.give(node.outputs[0], axes, zero=walk.is_zero(node.inputs[0]))
