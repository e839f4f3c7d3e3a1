"""Whether a small upload would become a huge graph: by functions in functions, by constants that make constants.

Everything here is linear in the size of the upload. What is stored is looked at in `tensors`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.graph.files import size_of_weights
from worker.engine.ingest.wire import MOST_NODES

_MOST_NESTED = 64
"""Functions and bodies inside each other, once functions are inlined: exporters make one function of each module."""
_MOST_COMPUTED = 1 << 28
"""Elements that constants alone may make, unless as many weights are stored: nobody computes more on purpose."""
_MOST_TIMES = 8
"""So much more than was uploaded may be stored: floats out of integers of 4 bits."""
_FREE_BYTES = 256 << 20

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class _Extent:
    """What inlining makes of a call."""

    nodes: int
    bytes: int
    depth: int


def check_functions(model: onnx.ModelProto) -> None:
    """Raises SlimlineError GRAPH_CYCLE, GRAPH_TOO_DEEP, GRAPH_TOO_LARGE or MODEL_EXPANDS, by what inlining would do."""
    bodies = {_key_of(each): each.node for each in model.functions}
    extents: dict[_Key, _Extent] = {}
    calls = {key: {_callee(node) for node, _ in _walk(nodes)} & bodies.keys() for key, nodes in bodies.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        name = error.args[1][0][1]
        raise SlimlineError(
            "GRAPH_CYCLE", f"function {name!r} calls itself", node=name, hint="put the loop into a Loop or Scan node"
        ) from error
    for key in order:
        extents[key] = _measure(bodies[key], extents, key[1])
    if model.functions:
        _refuse_expanding(_measure(model.graph.node, extents, model.graph.name).bytes, model.ByteSize())


def _measure(nodes: Iterable[onnx.NodeProto], extents: Mapping[_Key, _Extent], name: str) -> _Extent:
    """The extent of `nodes`, those of the functions they call being known."""
    count = size = deepest = 0
    for node, depth in _walk(nodes):
        called = extents.get(_callee(node), _Extent(0, 0, 0))
        count += 1 + called.nodes
        size += called.bytes + sum(each.ByteSize() for each in node.attribute if each.HasField("t"))
        deepest = max(deepest, depth + called.depth + 1)
    if count > MOST_NODES:
        raise SlimlineError(
            "GRAPH_TOO_LARGE",
            f"with its functions inlined the graph has more than {MOST_NODES:,} nodes",
            node=name,
            hint="export loops as Loop or Scan",
        )
    if deepest > _MOST_NESTED:
        raise SlimlineError(
            "GRAPH_TOO_DEEP",
            f"functions and bodies are nested more than {_MOST_NESTED} deep",
            node=name,
            hint="inline functions before exporting: onnx.inliner.inline_local_functions",
        )
    return _Extent(count, size, deepest)


def _walk(nodes: Iterable[onnx.NodeProto], depth: int = 0) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Nodes and those in their bodies, with how deep they lie."""
    for node in nodes:
        yield node, depth
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _walk(body.node, depth + 1)


def _callee(node: onnx.NodeProto) -> _Key:
    return node.domain, node.op_type, node.overload


def _key_of(function: onnx.FunctionProto) -> _Key:
    return function.domain, function.name, function.overload


def check_computed(model: ir.Model) -> None:
    """Raises SlimlineError SHAPE_ABSURD at the node with which constants alone have made far more than is stored."""
    stored = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    limit = max(_MOST_COMPUTED, _MOST_TIMES * sum(tensor.size for tensor in stored if tensor is not None))
    fixed: set[ir.Value] = set()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if all(value is None or value in fixed or value.is_initializer() for value in node.inputs):
            fixed.update(node.outputs)
            for value in node.outputs:
                sizes = [dim for dim in value.shape or () if isinstance(dim, int)]
                limit -= math.prod(sizes)
                if limit < 0:
                    raise _absurd(node, sizes)


def _absurd(node: ir.Node, sizes: list[int]) -> SlimlineError:
    return SlimlineError(
        "SHAPE_ABSURD",
        f"node {node.name!r} would make a tensor of shape {sizes} out of constants, more than any real network needs",
        node=node.name,
        hint="check the exporter's shapes",
    )


def check_weights(model: ir.Model, uploaded_bytes: int) -> None:
    """Raises SlimlineError MODEL_EXPANDS where the cleaned-up model holds many times what was uploaded."""
    _refuse_expanding(size_of_weights(model), uploaded_bytes)


def _refuse_expanding(size: int, uploaded: int) -> None:
    if size > _MOST_TIMES * uploaded + _FREE_BYTES:
        raise SlimlineError(
            "MODEL_EXPANDS",
            f"{uploaded:,} bytes would become {size:,} bytes of weights: the same ones are used again and again",
            hint="share weights by calling the layer with the same initializer, not by copies or functions",
        )
