"""Residual blocks of a graph: sums of a tensor and of what is computed from it. Which of them go is `stages`."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.students.dependence import Dependence, bodies_of

_SUMS = frozenset({"Add", "Sum"})
_PAIR = 2
_UNTOUCHED = frozenset({"Identity", "Dropout"})
"""What gives its first input as it is, Dropout when it does not train."""


@dataclass(frozen=True)
class Block:
    """A node that sums `stream` and a branch computed from it; `place` is the stream's among its inputs.

    `inside` are the nodes from the stream to the sum, in order. Nothing else reads what they give.
    """

    sum: ir.Node
    place: int
    inside: Sequence[ir.Node]

    @property
    def stream(self) -> ir.Value:
        """What is left when the branch goes."""
        return _input(self.sum, self.place)

    @property
    def branch(self) -> ir.Value:
        """What the sum adds to the stream."""
        return _input(self.sum, 1 - self.place)


def find_blocks(graph: Graph) -> list[Block]:
    """The blocks of `graph` that can be dropped one by one, in order, those in bodies after the node with the body.

    Their branches hold weights: sums such as that in an approximation of GELU are none. What else they read, such as
    an attention mask, the rest of the graph reads too. Blocks that hold other blocks are left out. Whether stream
    and sum have one shape is not looked at.
    """
    layers = {id(layer.node) for layer in graph.layers()}
    found = [
        block
        for owner in graph.model.graphs()
        for dependence in [Dependence(owner)]
        for node in owner
        if node.op_type in _SUMS and len(node.inputs) == _PAIR
        for block in _blocks_at(node, dependence, layers)
    ]
    sums = {id(block.sum) for block in found}
    return [block for block in found if not any(id(node) in sums for node in block.inside)]


def _blocks_at(node: ir.Node, dependence: Dependence, layers: Collection[int]) -> Iterator[Block]:
    """The block that ends in `node`, if it is one."""
    for place in range(_PAIR):
        stream, branch = _source(_input(node, place)), _input(node, 1 - place)
        if stream.is_initializer():
            continue
        inside = dependence.between(stream, branch)
        if any(id(each) in layers for each in _with_inner(inside)) and dependence.dies_alone(inside, node, branch):
            yield Block(node, place, inside)


def _source(value: ir.Value) -> ir.Value:
    while (node := value.producer()) is not None and node.op_type in _UNTOUCHED:
        value = _input(node, 0)
    return value


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    if value is None:
        raise ValueError(f"input {place} of {node.name} is left out")
    return value


def _with_inner(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Nodes and those in their bodies."""
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from ir.traversal.RecursiveGraphIterator(body)
