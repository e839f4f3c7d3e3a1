"""What follows from the sizes of a graph's inputs, in bodies too. Single nodes are `inference`'s; no labels here."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import onnx
import onnx_ir as ir

from worker.engine.graph import shapes
from worker.engine.graph.channels.inference import Array, Inference
from worker.engine.graph.graph import Graph


class Propagation:
    """Fills in the shapes of a graph, as far as they follow; `failed` are nodes with inputs that do not suit them."""

    def __init__(self, graph: Graph) -> None:
        self.failed: list[str] = []
        self._nodes = Inference(graph)
        self._is_run = True
        self._visit_all(graph.model.graph)

    def array(self, value: ir.Value | None) -> Array | None:
        """The numbers of a small constant, stored or computed."""
        return self._nodes.array(value)

    def _visit_all(self, graph: ir.Graph) -> None:
        for node in graph:
            match node.op_type if not node.domain else None:
                case "If":
                    self._visit_if(node)
                case "Loop":
                    self._visit_loop(node)
                case "Scan":
                    self._visit_scan(node)
                case _:
                    self._visit(node)

    def _visit(self, node: ir.Node) -> None:
        try:
            self._nodes.infer(node)
        except onnx.shape_inference.InferenceError:
            if self._is_run and not node.domain:
                self.failed.append(node.name or "")
        else:
            self._nodes.evaluate(node)

    def _visit_if(self, node: ir.Node) -> None:
        """Where it is known which branch runs, its shapes count alone."""
        condition, names, before = self.array(node.inputs[0]), ("then_branch", "else_branch"), self._is_run
        taken = names if condition is None else (names[0 if condition.item() else 1],)
        for name in names:
            self._is_run = before and name in taken
            self._visit_all(node.attributes[name].as_graph())
        self._is_run = before
        for place, output in enumerate(node.outputs):
            results = [node.attributes[name].as_graph().outputs[place] for name in taken]
            _give(output, results[0].type, _merge(results))
            array = self.array(results[0])
            if len(results) == 1 and array is not None:
                self._nodes.arrays[output] = array

    def _visit_loop(self, node: ir.Node) -> None:
        body, initial = node.attributes["body"].as_graph(), node.inputs[2:]
        for value in body.inputs[:2]:
            value.shape = ir.Shape([])
        self._settle(body, body.inputs[2:], initial, body.outputs[1:])
        for output, first, last in zip(node.outputs, initial, body.outputs[1:], strict=False):
            _give(output, last.type, _merge([first, last]))
        trips = self._count_trips(node, body)
        for output, row in zip(node.outputs[len(initial) :], body.outputs[1 + len(initial) :], strict=True):
            _give(output, row.type, _insert(row, 0, trips))

    def _count_trips(self, node: ir.Node, body: ir.Graph) -> int | None:
        """How many iterations there are, where nothing can end them early."""
        count, begins, goes_on = map(self.array, (*node.inputs[:2], body.outputs[0]))
        last = body.outputs[0].producer()
        passes = last is not None and last.op_type == "Identity" and last.inputs[0] is body.inputs[1]
        is_begun = node.inputs[1] is None or (begins is not None and bool(begins.item()))
        is_counted = is_begun and (passes or (goes_on is not None and bool(goes_on.item())))
        return int(count.item()) if count is not None and is_counted else None

    def _visit_scan(self, node: ir.Node) -> None:
        body = node.attributes["body"].as_graph()
        count = len(node.inputs) - node.attributes["num_scan_inputs"].as_int()
        length: int | None = None
        for axis, whole, row in zip(scan_axes(node, "input"), node.inputs[count:], body.inputs[count:], strict=True):
            sizes = shapes.sizes(whole)
            row.shape = None if sizes is None else ir.Shape(np.delete(sizes, axis).tolist())
            length = length if sizes is None else sizes[axis]
        self._settle(body, body.inputs[:count], node.inputs[:count], body.outputs)
        for output, first, last in zip(node.outputs[:count], node.inputs, body.outputs, strict=False):
            _give(output, last.type, _merge([first, last]))
        for axis, output, row in zip(
            scan_axes(node, "output"), node.outputs[count:], body.outputs[count:], strict=True
        ):
            _give(output, row.type, _insert(row, axis, length))

    def _settle(
        self,
        body: ir.Graph,
        carried: Sequence[ir.Value],
        initial: Sequence[ir.Value | None],
        results: Sequence[ir.Value],
    ) -> None:
        """Visit a body until what it carries on has the shapes that it had before."""
        for value, first in zip(carried, initial, strict=True):
            value.shape = None if first is None else first.shape
        self._visit_all(body)
        while True:
            merged = [_merge(pair) for pair in zip(carried, results, strict=False)]
            if merged == [shapes.dims(value) for value in carried]:
                return
            for value, dims in zip(carried, merged, strict=True):
                _give(value, value.type, dims)
            for made in chain.from_iterable(inner.outputs for inner in ir.traversal.RecursiveGraphIterator(body)):
                made.shape = None
                self._nodes.arrays.pop(made, None)
            self._visit_all(body)


def scan_axes(node: ir.Node, side: str) -> Sequence[int]:
    """Of a Scan the axis along which each scanned input or output lies; `side` says which of the two."""
    scanned, name = node.attributes["num_scan_inputs"].as_int(), f"scan_{side}_axes"
    if name in node.attributes:
        return node.attributes[name].as_ints()
    return [0] * (scanned if side == "input" else len(node.outputs) - len(node.inputs) + scanned)


def _merge(values: Sequence[ir.Value | None]) -> shapes.Dims | None:
    """The dimensions that all of them have; one in which they differ is unknown."""
    known = [shapes.dims(value) for value in values]
    found = [dims for dims in known if dims is not None]
    if len(found) < len(known) or len(set(map(len, found))) > 1:
        return None
    return [column[0] if len(set(column)) == 1 else None for column in zip(*found, strict=True)]


def _insert(row: ir.Value, axis: int, length: int | None) -> shapes.Dims | None:
    """The dimensions of rows stacked along an axis of the result."""
    dims = shapes.dims(row)
    if dims is None:
        return None
    place = axis % (len(dims) + 1)
    return [*dims[:place], length, *dims[place:]]


def _give(value: ir.Value, kind: ir.TypeProtocol | None, dims: shapes.Dims | None) -> None:
    value.type, value.shape = kind, None if dims is None else ir.Shape(dims)
