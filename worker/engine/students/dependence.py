"""What depends on what in one graph or body. A node's bodies count as part of the node; nothing is changed here."""

from collections.abc import Iterable, Sequence

import onnx_ir as ir

SHAPES = frozenset({"Shape", "Size"})
"""What they give depends on sizes alone, which are no data."""


class Dependence:
    """Of one graph in order: which nodes lie between two values, and which die when one is no longer read."""

    def __init__(self, graph: ir.Graph) -> None:
        self._nodes = list(graph)
        self._reads = [_read_by(node) for node in self._nodes]
        self._outputs = list(graph.outputs)
        self._fed = [value for value in graph.inputs if not value.is_initializer()]

    def between(self, start: ir.Value, end: ir.Value) -> list[ir.Node]:
        """The nodes on ways from `start` to `end`, other ways than by sizes alone; none where there is no way."""
        needed = self._needed([end])
        reached, inside = {start}, []
        for node, reads in zip(self._nodes, self._reads, strict=True):
            if node.op_type not in SHAPES and not reached.isdisjoint(reads):
                reached.update(node.outputs)
                if not needed.isdisjoint(node.outputs):
                    inside.append(node)
        return inside if end in reached and end is not start else []

    def dies_alone(self, inside: Iterable[ir.Node], reader: ir.Node, value: ir.Value) -> bool:
        """Whether all of `inside` is dead once `reader` no longer reads `value`, and no input of the graph is."""
        before, after = self._needed(self._outputs), self._needed(self._outputs, reader, value)
        inputs_stay = all(each in after for each in self._fed if each in before)
        return inputs_stay and not any(each in after for node in inside for each in node.outputs)

    def _needed(
        self, ends: Sequence[ir.Value], reader: ir.Node | None = None, unread: ir.Value | None = None
    ) -> set[ir.Value]:
        """All values that `ends` depend on, with themselves, were `unread` not read by `reader`."""
        needed = set(ends)
        for node, reads in zip(reversed(self._nodes), reversed(self._reads), strict=True):
            if not needed.isdisjoint(node.outputs):
                needed |= reads - {unread} if node is reader else reads
        return needed


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """The branches or the body that a node runs."""
    return [each.as_graph() for each in node.attributes.values() if each.type is ir.AttributeType.GRAPH]


def _read_by(node: ir.Node) -> set[ir.Value]:
    """What a node and its bodies read; what bodies make themselves is among it, and does no harm."""
    read = {value for value in node.inputs if value is not None}
    for body in bodies_of(node):
        read.update(body.outputs, *(_read_by(inner) for inner in body))
    return read
