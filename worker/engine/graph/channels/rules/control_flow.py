"""If, Loop and Scan: what a body takes and gives is one with what the node does. Captured values need nothing."""

from collections.abc import Sequence

import onnx_ir as ir

from worker.engine.graph.channels.propagation import scan_axes
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.visiting import visit
from worker.engine.graph.channels.walk import Walk, called

_OWN = 2
"""Of a Loop's inputs and its body's: number and condition, which have no labels."""


@rule("If")
def _branches(walk: Walk, node: ir.Node) -> None:
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for branch in branches:
        _visit_all(walk, branch)
    for output, *results in zip(node.outputs, *(branch.outputs for branch in branches), strict=True):
        made = _unite(walk, results, f"the branches of {called(node)} give different shapes")
        walk.give(output, made, zero=all(map(walk.is_zero, results)))


@rule("Loop")
def _loop(walk: Walk, node: ir.Node) -> None:
    body, initial = node.attributes["body"].as_graph(), node.inputs[_OWN:]
    for value in body.inputs[:_OWN]:
        walk.give(value, walk.stuck(value, f"it counts iterations of {called(node)}"))
    states = body.outputs[1 : 1 + len(initial)]
    _carry(walk, node, initial, body.inputs[_OWN:])
    _visit_all(walk, body)
    _give_states(walk, node, initial, states)
    for output, row in zip(node.outputs[len(initial) :], body.outputs[1 + len(initial) :], strict=True):
        _give_stacked(walk, node, output, row, 0)


@rule("Scan")
def _scan(walk: Walk, node: ir.Node) -> None:
    body = node.attributes["body"].as_graph()
    count = len(node.inputs) - node.attributes["num_scan_inputs"].as_int()
    initial, states = node.inputs[:count], body.outputs[:count]
    for axis, whole, row in zip(scan_axes(node, "input"), node.inputs[count:], body.inputs[count:], strict=True):
        axes = walk.known_axes(whole)
        if axes is not None:
            walk.block(axes[axis], f"{called(node)} goes along it")
            axes = [labels for place, labels in enumerate(axes) if place != axis % len(axes)]
        walk.give(row, axes, zero=walk.is_zero(whole))
    _carry(walk, node, initial, body.inputs[:count])
    _visit_all(walk, body)
    _give_states(walk, node, initial, states)
    for axis, output, row in zip(scan_axes(node, "output"), node.outputs[count:], body.outputs[count:], strict=True):
        _give_stacked(walk, node, output, row, axis)


def _visit_all(walk: Walk, body: ir.Graph) -> None:
    for node in body:
        visit(walk, node)


def _carry(walk: Walk, node: ir.Node, initial: Sequence[ir.Value | None], carried: Sequence[ir.Value]) -> None:
    """Give the body what it carries on. That it stays zero where masked is not known before the body is walked."""
    for value, first in zip(carried, initial, strict=True):
        axes = walk.known_axes(first)
        fits = axes is not None and walk.sizes.of(value) == tuple(map(len, axes))
        walk.give(value, axes if fits else walk.stuck(value, f"its shape changes as {called(node)} goes on"))


def _give_states(walk: Walk, node: ir.Node, initial: Sequence[ir.Value | None], states: Sequence[ir.Value]) -> None:
    """The last states: of no iterations they are the first."""
    for output, first, last in zip(node.outputs, initial, states, strict=False):
        made = _unite(walk, [first, last], f"its shape changes as {called(node)} goes on")
        walk.give(output, made, zero=walk.is_zero(first) and walk.is_zero(last))


def _give_stacked(walk: Walk, node: ir.Node, output: ir.Value, row: ir.Value, axis: int) -> None:
    """What the iterations give, in rows along an axis of the output."""
    axes, made = walk.known_axes(row), walk.stuck(output, f"it counts iterations of {called(node)}")
    if axes is None or made is None:
        _hold(walk, axes, f"how many of them {called(node)} gives is not known")
        return walk.give(output, made)
    place = axis % len(made)
    return walk.give(output, [*axes[:place], made[place], *axes[place:]], zero=walk.is_zero(row))


def _unite(walk: Walk, values: Sequence[ir.Value | None], reason: str) -> Axes | None:
    """One set of labels for values of the same shape; without that nothing of them can be removed."""
    known = [walk.known_axes(value) for value in values]
    found = [axes for axes in known if axes is not None]
    if len(found) == len(known) and len({tuple(map(len, axes)) for axes in found}) == 1:
        for other in found[1:]:
            for labels, own in zip(other, found[0], strict=True):
                walk.unite(labels, own)
        return found[0]
    for axes in found:
        _hold(walk, axes, reason)
    return None


def _hold(walk: Walk, axes: Sequence[Labels] | None, reason: str) -> None:
    for labels in axes or ():
        walk.block(labels, reason)
