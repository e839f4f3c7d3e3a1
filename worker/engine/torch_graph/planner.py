"""Makes the `Plan` of a graph: which function runs each node, and in which form values travel between them."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from worker.engine.graph.shapes import sizes
from worker.engine.torch_graph import control, expansion, fusion
from worker.engine.torch_graph.host import HOST_TYPES
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.plan import CONTEXT, Plan
from worker.engine.torch_graph.schema import check_node
from worker.engine.torch_graph.scope import Scope, Value
from worker.engine.torch_graph.source import Source, stored_tensor
from worker.engine.torch_graph.table import Operator, Run, find_host_rule, find_operator

_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Clip", "Where", "Expand", "CastLike"})
"""Operators for which a lone number is part of the formula, as the 0.5 in GELU, and no parameter."""


@dataclass
class Uses:
    """What the planned nodes do with the weights, by number."""

    trained: set[int] = field(default_factory=set)
    statistics: set[int] = field(default_factory=set)
    planned: set[int] = field(default_factory=set)
    """Weights whose numbers a plan holds: it would not follow a training step."""


class Planner:
    """Plans a graph and the bodies in it. `uses` is filled on the way."""

    def __init__(self, source: Source, numbers_of: Callable[[int], Any], watched: Collection[str] = ()) -> None:
        """`numbers_of` gives a weight's numbers by its number; values named in `watched` go through the observers."""
        self.source = source
        self._watched = watched
        self.uses = Uses()
        self.node = ""
        """The node being planned: the one of the user's graph, also while its function body is."""
        self._numbers_of = numbers_of
        self._versions = {_domain(name): version for name, version in source.model.opset_imports.items()}

    def plan(self) -> Plan:
        """The plan of the main graph. Raises SlimlineError for the first node that cannot be run."""
        graph = self.source.model.graph
        scope = Scope(self.source, self._numbers_of, self._watched)
        arguments = [scope.enter(value) for value in graph.inputs if not value.is_initializer()]
        self.watch(scope, graph.inputs)
        self.add_nodes(scope, graph)
        results = [scope.tensor(value) for value in graph.outputs]
        for value in graph.outputs:
            self.note(scope, value)
        return scope.finish(arguments, results)

    def add_nodes(self, scope: Scope, graph: ir.Graph) -> None:
        """Plan every node of `graph`, in order."""
        around = self.node
        for node in graph:
            if stored_tensor(node) is not None:
                continue  # a weight
            self.node = scope.node = around if scope.is_expanding else node.name or node.op_type
            self._add(scope, node)
            self.watch(scope, node.outputs)
        self.node = scope.node = around

    def watch(self, scope: Scope, values: Iterable[ir.Value]) -> None:
        """Show those of `values` that are watched to their observers."""
        for value in values:
            if scope.watches(value):
                scope.watch(value)

    def note(self, scope: Scope, value: ir.Value | None) -> None:
        """Remember that gradients reach `value`, should it be a weight."""
        number = scope.weight(value)
        if number is not None:
            self.uses.trained.add(number)

    def version(self, domain: str) -> int:
        """The opset version that the nodes being planned are written in."""
        return self._versions.get(_domain(domain), 1)

    def _add(self, scope: Scope, node: ir.Node) -> None:
        described, domain = self.describe(scope, node), _domain(node.domain)
        self._check(described)
        fused = fusion.match(scope, node)
        if fused is not None:
            self._add_fused(scope, node, fused)
            return
        if (domain, node.op_type) == ("", "Identity") and not scope.watches(node.outputs[0]):
            scope.alias(node.outputs[0], node.inputs[0])
            return
        if control.add_control(self, scope, node, described):
            return
        rule = find_host_rule(domain, node.op_type)
        if rule is not None and _fits_host(scope, node):
            run = rule(described)
            if run is not None:
                _add_on_host(scope, node, run)
                return
        operator = find_operator(domain, node.op_type)
        if operator is None:
            self._add_body(scope, node, described)
        else:
            self._add_operator(scope, node, operator, described)

    def _check(self, described: Node) -> None:
        check_node(described)
        if ir.DataType.STRING in (*described.input_types, *described.output_types):
            raise described.refuse("text is not run in torch")

    def _add_fused(self, scope: Scope, node: ir.Node, fused: fusion.Fused) -> None:
        slot = scope.slot()
        scope.emit(fused.run, [scope.tensor(value) for value in fused.inputs], [slot])
        scope.define(node.outputs[0], Value(tensor=slot))
        for value in fused.inputs:
            self.note(scope, value)

    def _add_operator(self, scope: Scope, node: ir.Node, operator: Operator, described: Node) -> None:
        run = operator.build(described)
        inputs = [CONTEXT] if operator.wants_context else []
        for index, value in enumerate(node.inputs):
            inputs.append(scope.host(value) if index in operator.host else scope.tensor(value))
            number = scope.weight(value)
            if number is not None and index in operator.host:
                self.uses.planned.add(number)
            if number is not None and index in operator.statistics:
                self.uses.statistics.add(number)
            elif number is not None and node.op_type in _ARITHMETIC and self.source.weights[number].is_lone:
                continue
            elif index not in (*operator.host, *operator.fixed):
                self.note(scope, value)
        outputs = [scope.slot() for _ in node.outputs]
        scope.emit(run, inputs, outputs)
        for value, slot in zip(node.outputs, outputs, strict=True):
            scope.define(value, Value(host=slot, type=value.dtype) if operator.gives_host else Value(tensor=slot))

    def _add_body(self, scope: Scope, node: ir.Node, described: Node) -> None:
        """Plan the function body that ONNX gives for an operator that the table lacks."""
        body, version = expansion.body_of(self.source, node, described)
        before = self._versions
        self._versions = {**before, "": version}
        with scope.expanding():
            for inner, outer in zip(body.inputs, (*node.inputs, *[None] * len(body.inputs)), strict=False):
                scope.alias(inner, outer)
            self.add_nodes(scope, body)
            for outer, inner in zip(node.outputs, body.outputs, strict=False):
                scope.alias(outer, inner)
        self._versions = before

    def describe(self, scope: Scope, node: ir.Node) -> Node:
        """What the operator's `Build` may know."""
        given = [scope.resolve(value) for value in node.inputs]
        return Node(
            name=self.node,
            op=node.op_type,
            domain=node.domain,
            version=self.version(node.domain),
            attributes={name: _plain(attribute) for name, attribute in node.attributes.items()},
            input_types=tuple(scope.type_of(value) for value in given),
            output_types=tuple(value.dtype for value in node.outputs),
            input_ranks=tuple(map(_rank, given)),
            output_sizes=tuple(map(sizes, node.outputs)),
            constants=tuple(scope.number(value, is_lone=node.op_type in _ARITHMETIC) for value in given),
            given=tuple(value is not None for value in given),
            wanted=tuple(bool(value.name) for value in node.outputs),
        )


def _domain(name: str) -> str:
    """The default domain has two names."""
    return "" if name == "ai.onnx" else name


def _plain(attribute: ir.Attr) -> Any:
    match attribute.type:
        case ir.AttributeType.TENSOR:
            return attribute.as_tensor().numpy()
        case ir.AttributeType.INTS | ir.AttributeType.FLOATS | ir.AttributeType.STRINGS:
            return list(attribute.value)
        case _:
            return attribute.value


def _rank(value: ir.Value | None) -> int | None:
    return value.shape.rank() if value is not None and value.shape is not None else None


def _fits_host(scope: Scope, node: ir.Node) -> bool:
    """Whether all inputs are Python numbers already, and the outputs may be."""
    given = [value for value in map(scope.resolve, node.inputs) if value is not None]
    types = {scope.type_of(value) for value in given} | {value.dtype for value in node.outputs}
    return bool(given) and all(map(scope.is_host, given)) and HOST_TYPES.issuperset(types - {None})


def _add_on_host(scope: Scope, node: ir.Node, run: Run) -> None:
    """Run the node on Python numbers: now where they are all known, else at every call."""
    first = scope.type_of(scope.resolve(node.inputs[0]))
    given = list(map(scope.resolve, node.inputs))
    known = list(map(scope.constant, given))
    if all(value is None or number is not None for value, number in zip(given, known, strict=True)):
        with suppress(ValueError, IndexError, TypeError, OverflowError):  # it fails when it runs, if it ever does
            result = run(*known)
            results = result if isinstance(result, tuple) else (result,)
            for value, each in zip(node.outputs, results, strict=False):
                scope.define(value, Value(constant=each, type=value.dtype or first))
            return
    outputs = [scope.slot() for _ in node.outputs]
    scope.emit(run, [scope.host(value) for value in node.inputs], outputs)
    for value, slot in zip(node.outputs, outputs, strict=True):
        scope.define(value, Value(host=slot, type=value.dtype or first))
