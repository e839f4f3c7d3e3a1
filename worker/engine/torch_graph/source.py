"""What a plan is made from: a snapshot of the graph with types known, and the weights stored in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.passes.normalize import free_names
from worker.engine.graph.structure import check_structure, outline
from worker.engine.torch_graph.dtypes import TRAINABLE

_MADE_BY_EXPORTERS = re.compile(r"val_\d+|scalar_tensor\w*|_tensor_constant\d+|c_lifted_\w+|onnx::\w+|/.*")
"""Names that torch's exporters give to constants; parameters have the names of their modules."""
_DEEPEST = 32
"""Bodies inside bodies: each takes some Python frames when it runs."""


@dataclass(frozen=True)
class Weight:
    """A tensor stored in the graph, as initializer or in a Constant node."""

    name: str
    value: ir.Value
    """In the snapshot."""
    home: ir.Value | None
    """In the user's graph; None for a constant of a function body, which is nobody's weight."""
    tensor: ir.TensorProtocol

    @property
    def is_number(self) -> bool:
        """Whether it belongs to the graph's arithmetic: never trained, saved or written back."""
        in_node = self.value.producer() is not None
        return self.home is None or (in_node and (self.tensor.size <= 1 or self.tensor.dtype not in TRAINABLE))

    @property
    def is_lone(self) -> bool:
        """Whether it looks like a number of a formula: without dimensions, or one element named by an exporter."""
        is_made_up = _MADE_BY_EXPORTERS.fullmatch(self.name) is not None
        return self.tensor.shape.rank() == 0 or (self.tensor.size == 1 and is_made_up)


class Source:
    """A snapshot of a graph: functions inlined, sorted, types and shapes inferred. The user's graph stays as it is."""

    def __init__(self, graph: Graph) -> None:
        """Raises SlimlineError GRAPH_CYCLE, GRAPH_TOO_DEEP, VALUE_MISSING, NAME_DUPLICATE or SHAPES_CONFLICT."""
        _check_depth(graph.model.graph)
        check_structure(outline(graph.model.graph))
        try:
            snapshot = graph.clone()
        except (RuntimeError, ValueError) as error:  # as onnx-ir has it, a body may not give a value from around it
            raise SlimlineError("GRAPH_INVALID", str(error), hint="export the model again") from error
        homes = dict(_same_values(snapshot.model, graph.model))
        if snapshot.model.functions:
            common.InlinePass()(snapshot.model)
        snapshot.model.graph.sort()
        snapshot.infer_shapes()
        self.model = snapshot.model
        self.weights = list(_find_weights(snapshot.model.graph, homes))
        self.numbers = {weight.value: number for number, weight in enumerate(self.weights)}
        self.bodies: dict[ir.Node, tuple[ir.Graph, int]] = {}
        """Function bodies that stand in for operators the table lacks, with their opset version."""

    def add_body(self, node: ir.Node, body: ir.Graph, version: int) -> None:
        """Enter a function body that stands in for `node`, and its constants."""
        self.bodies[node] = body, version
        for weight in _find_weights(body, {}):
            self.numbers[weight.value] = len(self.weights)
            self.weights.append(weight)

    @cached_property
    def names(self) -> frozenset[str | None]:
        """Of what the inputs and nodes of the graph and its bodies give, weights aside."""
        given = (value for graph in self.model.graphs() for value in (*graph.inputs, *_made_in(graph)))
        return frozenset(value.name for value in given if value not in self.numbers)


def _made_in(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for node in graph for value in node.outputs)


def stored_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant node holds; None for another node, or one that holds text."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or not node.attributes:
        return None
    name, attribute = next(iter(node.attributes.items()))
    match name:
        case "value":
            return attribute.as_tensor()
        case "value_float" | "value_floats":
            return ir.Tensor(np.array(attribute.value, np.float32))
        case "value_int" | "value_ints":
            return ir.Tensor(np.array(attribute.value, np.int64))
        case _:
            return None


def _check_depth(graph: ir.Graph, depth: int = 0, node: str | None = None) -> None:
    if depth > _DEEPEST:
        raise SlimlineError(
            "GRAPH_TOO_DEEP", f"bodies lie over {_DEEPEST} deep inside each other", node=node, hint="flatten the graph"
        )
    for each in graph:
        for attribute in each.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH:
                _check_depth(attribute.as_graph(), depth + 1, each.name)


def _same_values(copy: ir.Model, original: ir.Model) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Values that stand at the same place in a clone and in what it was cloned from."""
    for mine, theirs in zip(copy.graphs(), original.graphs(), strict=True):
        yield from ((value, theirs.initializers[name]) for name, value in mine.initializers.items())
        for node, twin in zip(mine, theirs, strict=True):
            yield from zip(node.outputs, twin.outputs, strict=True)


def _find_weights(graph: ir.Graph, homes: dict[ir.Value, ir.Value]) -> Iterator[Weight]:
    """Every stored tensor under a name of its own: bodies beside each other may use one twice."""
    taken: set[str] = set()
    for inner in (graph, *graph.subgraphs()):
        stored = [(value, value.const_value) for value in inner.initializers.values()]
        stored += [(node.outputs[0], stored_tensor(node)) for node in inner]
        for value, tensor in stored:
            if tensor is not None:
                name = next(free_names(value.name or "", taken))
                taken.add(name)
                yield Weight(name, value, homes.get(value), tensor)
