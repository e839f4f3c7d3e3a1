"""Decides which nodes work on integers and which tensors get a Q/DQ pair for it. Nothing is written here: see `pairs`.

The patterns are those that runtimes fuse: a pair on every input of an integer node, and on the output where its
kernel writes integers. A Relu or Clip that alone reads a layer is part of it: the pair comes behind.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.target import Target

_ABSORBED = frozenset({"Clip", "Relu"})
_READS_ALL = frozenset({"Add", "Concat", "MatMul", "Mul"})
"""Operators whose inputs are all quantized; others by their first alone, next to weights."""
_WRITES_FLOATS = frozenset({"Gemm", "MatMul"})
"""Layers whose integer kernel may also give floats."""


@dataclass(frozen=True)
class Way:
    """How far integers go beyond the chosen layers."""

    name: str
    between: bool = False
    """Also operators between integer nodes, so that a chain of layers never leaves the integers."""
    products: bool = False
    """Also matrix products of two activations, as in attention."""


@dataclass
class Placement:
    """What becomes integer. `pairs` maps a tensor to the one whose range it takes, mostly itself."""

    nodes: set[ir.Node]
    pairs: dict[ir.Value, ir.Value] = field(default_factory=dict)
    written_as_integers: set[ir.Value] = field(default_factory=set)
    """Tensors that a kernel gives as integers: all their readers take those, floats are not there."""


def decide(
    graph: Graph, layers: Collection[ir.Node], way: Way, target: Target, has_range: Callable[[ir.Value], bool]
) -> Placement:
    """The placement for `layers` of `graph`, which are left in float where a tensor they touch has no range."""
    nodes = {node for node in graph.nodes() if _is_candidate(node, layers, way, target)}
    nodes = {node for node in nodes if all(has_range(value) for value in _touched(node))}
    kept = _drop_isolated(nodes, target)
    return _with_pairs(Placement(kept), graph, target)


def flowing_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """The float inputs of an integer node that samples decide, with their positions."""
    last = len(node.inputs) if node.op_type in _READS_ALL else 1
    return [
        (index, value)
        for index, value in enumerate(node.inputs[:last])
        if value is not None and value.dtype == ir.DataType.FLOAT and trace_weight(value) is None
    ]


def result_of(node: ir.Node) -> ir.Value:
    """The tensor by which what `node` computes leaves it: behind the Relu or Clip that it absorbs."""
    value = node.outputs[0]
    while (reader := _absorbed_reader(value)) is not None:
        value = reader.outputs[0]
    return value


def _is_candidate(node: ir.Node, layers: Collection[ir.Node], way: Way, target: Target) -> bool:
    if node in layers:
        return True
    if node.domain or not all(value is None or value.dtype is not None for value in node.inputs):
        return False
    if node.op_type == "MatMul":
        return way.products and len(flowing_inputs(node)) == len(node.inputs)
    if not way.between or node.op_type not in target.between | target.carriers:
        return False
    # A constant operand, such as a bias, would lose more bits than the kernel gains.
    constants = len(node.inputs) - len(flowing_inputs(node)) if node.op_type in _READS_ALL else 0
    return bool(flowing_inputs(node)) and not constants


def _touched(node: ir.Node) -> list[ir.Value]:
    """The tensors that need a range for `node` to work on integers."""
    written = [] if node.op_type in _WRITES_FLOATS else _results(node)
    return [*(value for _, value in flowing_inputs(node)), *written]


def _results(node: ir.Node) -> list[ir.Value]:
    return list(node.outputs) if node.op_type == "Split" else [result_of(node)]


def _drop_isolated(nodes: set[ir.Node], target: Target) -> set[ir.Node]:
    """Without nodes between that integers do not both come from and go to: they would only add conversions."""
    between = {node for node in nodes if node.op_type in target.between | target.carriers}
    while True:
        isolated = {node for node in between if not (_is_fed(node, nodes) and _is_read(node, nodes))}
        if not isolated:
            return nodes
        nodes, between = nodes - isolated, between - isolated


def _is_fed(node: ir.Node, nodes: set[ir.Node]) -> bool:
    return any(_source(value) in nodes for _, value in flowing_inputs(node))


def _is_read(node: ir.Node, nodes: set[ir.Node]) -> bool:
    return any(use.node in nodes for value in _results(node) for use in value.uses())


def _source(value: ir.Value) -> ir.Node | None:
    """The node that computed `value`, seen through what it absorbs."""
    node = value.producer()
    while node is not None and node.op_type in _ABSORBED:
        before = node.inputs[0]
        if before is None or _absorbed_reader(before) is not node:
            break
        node = before.producer()
    return node


def _absorbed_reader(value: ir.Value) -> ir.Node | None:
    """The Relu or Clip with constant bounds that alone reads `value`, in the same graph."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader, index = next(iter(uses))
    if index or reader.op_type not in _ABSORBED or reader.domain or reader.graph is not value.graph:
        return None
    return reader if all(each is None or each.is_initializer() for each in reader.inputs[1:]) else None


def _with_pairs(placement: Placement, graph: Graph, target: Target) -> Placement:
    for node in graph.nodes():
        if node not in placement.nodes:
            continue
        inputs = [value for _, value in flowing_inputs(node)]
        for value in inputs:
            placement.pairs.setdefault(value, value)
        if node.op_type in _WRITES_FLOATS:
            continue
        carried = placement.pairs[inputs[0]] if node.op_type in target.carriers else None
        for value in _results(node):
            placement.pairs[value] = carried or value
            placement.written_as_integers.add(value)
    return placement


def readers(value: ir.Value, placement: Placement) -> Iterator[tuple[ir.Node, int]]:
    """The inputs that take what the pair of `value` gives back: of all nodes, or of integer ones alone."""
    for node, index in list(value.uses()):
        if value in placement.written_as_integers or node in placement.nodes:
            yield node, index
