"""Applies the rules to nodes in order; what no rule can follow is blocked. What operators do is in `rules/`."""

from collections.abc import Iterator

import onnx_ir as ir

from worker.engine.graph.channels.table import find_rule
from worker.engine.graph.channels.walk import Walk, called


def visit(walk: Walk, node: ir.Node) -> None:
    """Apply the rule of a node. Without one, or where it loses track, nothing that the node reads can be removed."""
    rule = find_rule(node.domain, node.op_type)
    if rule is None:
        _hold(walk, node, f"{called(node)} is an operator without a rule")
        return
    rule(walk, node)
    if not bodies_of(node) and any(map(walk.is_lost, node.outputs)):
        _hold_inputs(walk, node, f"what becomes of it in {called(node)} is not known")


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """The graphs that a node holds, by the names of its attributes."""
    attributes = [node.attributes[name] for name in sorted(node.attributes)]
    return [attribute.as_graph() for attribute in attributes if attribute.type == ir.AttributeType.GRAPH]


def _hold(walk: Walk, node: ir.Node, reason: str) -> None:
    _hold_inputs(walk, node, reason)
    for value in node.outputs:
        walk.give(value, walk.stuck(value, reason))


def _hold_inputs(walk: Walk, node: ir.Node, reason: str) -> None:
    for value in _read_by(node):
        for labels in walk.known_axes(value) or ():
            walk.block(labels, reason)


def _read_by(node: ir.Node) -> Iterator[ir.Value | None]:
    """What the node or its bodies read."""
    yield from node.inputs
    for body in bodies_of(node):
        for inner in ir.traversal.RecursiveGraphIterator(body):
            yield from inner.inputs
        yield from body.outputs
