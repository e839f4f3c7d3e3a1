"""If, Loop and Scan: operators with bodies. A body becomes a plan that gets what it captures as arguments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.context import Context
from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.plan import CONTEXT, Plan
from worker.engine.torch_graph.scope import Scope, Value
from worker.engine.torch_graph.untaken import tie_untaken

if TYPE_CHECKING:
    from worker.engine.torch_graph.planner import Planner

_BATCHED_SCAN = 8
"""The opset whose Scan works on each sample of a batch by itself."""


def add_control(planner: "Planner", scope: Scope, node: ir.Node, described: Node) -> bool:
    """Plan `node` where it is an If, Loop or Scan; says whether it was. Raises SlimlineError GRAPH_INVALID."""
    if node.domain not in ("", "ai.onnx"):
        return False
    _check_counts(node, described)
    match node.op_type:
        case "If":
            _add_if(planner, scope, node)
        case "Loop":
            _add_loop(planner, scope, node)
        case "Scan":
            _add_scan(planner, scope, node)
        case _:
            return False
    return True


def _check_counts(node: ir.Node, described: Node) -> None:
    """Whether bodies take what they are given, and give what the node gives."""
    given, made = len(node.inputs), len(node.outputs)
    bodies = {name: each.as_graph() for name, each in node.attributes.items() if each.type is ir.AttributeType.GRAPH}
    takes = {name: len(body.inputs) for name, body in bodies.items()}
    gives = {name: len(body.outputs) for name, body in bodies.items()}
    match node.op_type:
        case "If":
            fits = set(takes.values()) == {0} and set(gives.values()) == {made}
        case "Loop":
            fits = takes["body"] == max(given, 2) and gives["body"] == made + 1 and made >= given - 2
        case "Scan":
            own = given - (described.version <= _BATCHED_SCAN)
            fits = takes["body"] == own and gives["body"] == made and described.need("num_scan_inputs") <= own
        case _:
            return
    if not fits:
        raise SlimlineError(
            "GRAPH_INVALID",
            f"{node.op_type} has {given} inputs and {made} outputs, its bodies take {takes} and give {gives}",
            node=described.name,
            hint="export the model again; onnx.checker.check_model shows more",
        )


class Body:
    """A body planned, except for the form of its outputs."""

    def __init__(self, planner: "Planner", scope: Scope, graph: ir.Graph, forms: Sequence[ir.DataType | None]) -> None:
        """`forms`: for each input, the type its Python numbers stand for, None for a tensor."""
        self.graph = graph
        self.scope = scope.inner()
        self._arguments = [
            self.scope.enter(value, host_type=form) for value, form in zip(graph.inputs, forms, strict=True)
        ]
        planner.watch(self.scope, graph.inputs)
        planner.add_nodes(self.scope, graph)
        for value in graph.outputs:
            planner.note(self.scope, value)

    def finish(self, results: Sequence[int]) -> Plan:
        """The plan that gives `results`, slots of this body. What it captures follows its arguments."""
        return self.scope.finish(self._arguments, results)

    @property
    def captured(self) -> list[int]:
        """The slots around it that it captures, in order; complete once it is finished."""
        return list(self.scope.captures)

    def tensors(self, start: int = 0) -> list[int]:
        """Slots of its outputs from `start` on, as tensors."""
        return [self.scope.tensor(value) for value in self.graph.outputs[start:]]


def _add_if(planner: "Planner", scope: Scope, node: ir.Node) -> None:
    condition = scope.host(node.inputs[0])
    bodies = [Body(planner, scope, node.attributes[name].as_graph(), ()) for name in ("then_branch", "else_branch")]
    forms = [_shared_form(values, bodies) for values in zip(*(body.graph.outputs for body in bodies), strict=True)]
    then, otherwise = (body.finish(_in_form(body, forms)) for body in bodies)
    inputs = [*bodies[0].captured, *bodies[1].captured]
    split = len(bodies[0].captured)

    def run(context: Context, holds: Any, *captured: Any) -> tuple[Any, ...]:
        if as_scalar(holds):
            taken, own, others = then, captured[:split], captured[split:]
        else:
            taken, own, others = otherwise, captured[split:], captured[:split]
        return tie_untaken(tuple(taken.run(context, own)), own, others)

    slots = [scope.slot() for _ in node.outputs]
    scope.emit(run, [CONTEXT, condition, *inputs], slots)
    for value, slot, form in zip(node.outputs, slots, forms, strict=True):
        scope.define(value, Value(tensor=slot) if form is None else Value(host=slot, type=form))


def _shared_form(values: Sequence[ir.Value], bodies: Sequence[Body]) -> ir.DataType | None:
    """The type of an output that both branches give as Python numbers; None where it is a tensor."""
    types = {body.scope.type_of(body.scope.resolve(value)) for value, body in zip(values, bodies, strict=True)}
    are_host = all(body.scope.is_host(value) for value, body in zip(values, bodies, strict=True))
    return types.pop() if are_host and len(types) == 1 else None


def _in_form(body: Body, forms: Sequence[ir.DataType | None]) -> list[int]:
    return [
        body.scope.tensor(value) if form is None else body.scope.host(value)
        for value, form in zip(body.graph.outputs, forms, strict=True)
    ]


def _add_loop(planner: "Planner", scope: Scope, node: ir.Node) -> None:
    graph = node.attributes["body"].as_graph()
    carried = len(graph.inputs) - 2
    body = Body(planner, scope, graph, [ir.DataType.INT64, ir.DataType.BOOL, *[None] * carried])
    plan = body.finish([body.scope.host(graph.outputs[0]), *body.tensors(1)])
    empty = [_empty(value) for value in graph.outputs[1 + carried :]]

    def run(context: Context, trips: Any, holds: Any, *values: Any) -> tuple[Any, ...]:
        trips, goes_on = as_scalar(trips), True if holds is None else as_scalar(holds)
        state, captured = list(values[:carried]), values[carried:]
        rows: list[list[torch.Tensor]] = [[] for _ in empty]
        count = 0
        while goes_on and (trips is None or count < trips):
            context.count_iteration()
            goes_on, *results = plan.run(context, [count, goes_on, *state, *captured])
            goes_on, state = as_scalar(goes_on), results[:carried]
            for row, each in zip(rows, results[carried:], strict=True):
                row.append(each)
            count += 1
        stacks = [torch.stack(row) if row else make(context) for row, make in zip(rows, empty, strict=True)]
        return (*state, *stacks)

    inputs = [scope.host(value) for value in (*node.inputs, None, None)[:2]]
    inputs += [scope.tensor(value) for value in node.inputs[2:]]
    _finish(planner, scope, node, run, [CONTEXT, *inputs, *body.captured])


def _finish(planner: "Planner", scope: Scope, node: ir.Node, run: Callable[..., Any], inputs: Sequence[int]) -> None:
    """Emit a loop, whose outputs are tensors."""
    for value in node.inputs:
        planner.note(scope, value)
    slots = [scope.slot() for _ in node.outputs]
    scope.emit(run, inputs, slots)
    for value, slot in zip(node.outputs, slots, strict=True):
        scope.define(value, Value(tensor=slot))


def _empty(value: ir.Value) -> Callable[[Context], torch.Tensor]:
    """Makes what a loop of no iterations stacks: no rows of the shape that `value` is declared to have."""
    sizes = [dim if isinstance(dim, int) else 0 for dim in value.shape or ()]
    dtype = held_as(value.dtype or ir.DataType.FLOAT)
    return lambda context: torch.zeros((0, *sizes), dtype=dtype, device=context.device)


@dataclass(frozen=True)
class _Scan:
    """Axes and directions of a Scan's inputs and outputs: -1 stands for backwards."""

    states: int
    input_axes: tuple[int, ...]
    input_steps: tuple[int, ...]
    output_axes: tuple[int, ...]
    output_steps: tuple[int, ...]
    empty: tuple[Callable[[Context], torch.Tensor], ...]

    def run(self, plan: Plan, context: Context, values: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """`values`: initial states, what is scanned, what the body captures. Gives final states and stacked outputs."""
        ends = self.states + len(self.input_axes)
        state, scanned, captured = list(values[: self.states]), values[self.states : ends], values[ends:]
        length = scanned[0].shape[self.input_axes[0]]
        lengths = [each.shape[axis] for each, axis in zip(scanned, self.input_axes, strict=True)]
        if any(each != length for each in lengths):
            raise ValueError(f"what is scanned has different lengths, {lengths}")
        rows: list[list[torch.Tensor]] = [[] for _ in self.output_axes]
        for index in range(length):
            context.count_iteration()
            parts = [
                tensor.select(axis, index if step > 0 else length - 1 - index)
                for tensor, axis, step in zip(scanned, self.input_axes, self.input_steps, strict=True)
            ]
            results = plan.run(context, [*state, *parts, *captured])
            state = results[: self.states]
            for row, each in zip(rows, results[self.states :], strict=True):
                row.append(each)
        outputs = zip(rows, self.empty, self.output_axes, self.output_steps, strict=True)
        stacks = [
            torch.stack(row[::step]).movedim(0, axis) if row else make(context).movedim(0, axis)
            for row, make, axis, step in outputs
        ]
        return (*state, *stacks)


def _add_scan(planner: "Planner", scope: Scope, node: ir.Node) -> None:
    graph = node.attributes["body"].as_graph()
    scanned = node.attributes["num_scan_inputs"].as_int()
    states = len(graph.inputs) - scanned
    outputs = len(graph.outputs) - states
    scan = _Scan(
        states,
        tuple(_ints(node, "scan_input_axes", scanned)),
        tuple(-1 if backwards else 1 for backwards in _ints(node, "scan_input_directions", scanned)),
        tuple(_ints(node, "scan_output_axes", outputs)),
        tuple(-1 if backwards else 1 for backwards in _ints(node, "scan_output_directions", outputs)),
        tuple(map(_empty, graph.outputs[states:])),
    )
    body = Body(planner, scope, graph, [None] * len(graph.inputs))
    plan = body.finish(body.tensors())
    given = list(node.inputs)
    is_batched = planner.version("") <= _BATCHED_SCAN
    if is_batched:
        if given[0] is not None or "directions" in node.attributes:
            raise planner.describe(scope, node).refuse("sequence_lens and directions of opset 8", "convert to opset 9")
        given = given[1:]

    def run(context: Context, *values: Any) -> tuple[torch.Tensor, ...]:
        if not is_batched:
            return scan.run(plan, context, values)
        own, captured = values[: len(given)], values[len(given) :]
        samples = [scan.run(plan, context, (*(each[index] for each in own), *captured)) for index in range(len(own[0]))]
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))

    inputs = [scope.tensor(value) for value in given]
    _finish(planner, scope, node, run, [CONTEXT, *inputs, *body.captured])


def _ints(node: ir.Node, name: str, count: int) -> Sequence[int]:
    return node.attributes[name].as_ints() if name in node.attributes else [0] * count
