"""Whether nodes form a graph: names defined once, nothing missing, no cycle. Operators are judged elsewhere."""

from collections import Counter
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError

_HINT = "export the model again; onnx.checker.check_model shows more"


def check_structure(model: onnx.ModelProto) -> None:
    """Raises SlimlineError GRAPH_EMPTY, NAME_DUPLICATE, VALUE_MISSING or GRAPH_CYCLE."""
    if not model.graph.node or not model.graph.output:
        what = "nodes" if not model.graph.node else "outputs"
        raise SlimlineError("GRAPH_EMPTY", f"the graph has no {what}", hint=_HINT)
    _check_graph(model.graph, ())
    for function in model.functions:
        _check_nodes(function.node, set(function.input), ())


def outline(graph: ir.Graph) -> onnx.ModelProto:
    """Nodes and names of a graph and its bodies, without weights: all that `check_structure` reads."""
    return onnx.ModelProto(graph=_outline(graph))


def _outline(graph: ir.Graph) -> onnx.GraphProto:
    proto = onnx.GraphProto()
    proto.input.extend(onnx.ValueInfoProto(name=value.name or "") for value in graph.inputs)
    proto.output.extend(onnx.ValueInfoProto(name=value.name or "") for value in graph.outputs)
    proto.initializer.extend(onnx.TensorProto(name=name) for name in graph.initializers)
    for node in graph:
        inputs = [value.name or "" if value is not None else "" for value in node.inputs]
        drawn = proto.node.add(name=node.name or "", op_type=node.op_type, input=inputs)
        drawn.output.extend(value.name or "" for value in node.outputs)
        for name, attribute in node.attributes.items():
            if attribute.type is ir.AttributeType.GRAPH:
                drawn.attribute.add(name=name, g=_outline(attribute.as_graph()))
    return proto


def _check_graph(graph: onnx.GraphProto, outer: Sequence[set[str]]) -> set[str]:
    """Checks a graph that sees the names in `outer`; gives the names it takes from there."""
    stored = [tensor.name for tensor in graph.initializer] + [tensor.values.name for tensor in graph.sparse_initializer]
    _refuse_duplicates("initializers", stored)
    inputs = [value.name for value in graph.input]
    _refuse_duplicates("inputs", inputs)
    known = {*stored, *inputs}
    used = _check_nodes(graph.node, known, outer)
    for output in graph.output:
        if output.name not in known:
            if not any(output.name in names for names in outer):
                raise _missing(output.name, "an output of the graph", None)
            used.add(output.name)
    return used


def _check_nodes(nodes: Iterable[onnx.NodeProto], known: set[str], outer: Sequence[set[str]]) -> set[str]:
    """Adds what the nodes make to `known`; gives the names they take from `outer`."""
    nodes = list(nodes)
    maker: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in known:
                raise _twice(f"value {name!r} is made twice", label(node))
            known.add(name)
            maker[name] = index
    needs = [_needs(node, known, outer) for node in nodes]
    try:
        TopologicalSorter(
            {index: {maker[name] for name in names if name in maker} for index, names in enumerate(needs)}
        ).prepare()
    except CycleError as error:
        circle = [label(nodes[index]) for index in error.args[1]]
        told = " -> ".join(circle[:6])
        raise SlimlineError(
            "GRAPH_CYCLE",
            f"nodes feed themselves: {told}",
            node=circle[0],
            hint="put the loop into a Loop or Scan node",
        ) from error
    return set().union(*needs) - known


def _needs(node: onnx.NodeProto, known: set[str], outer: Sequence[set[str]]) -> set[str]:
    """The names a node reads, with those its bodies read from around it."""
    needs = set(filter(None, node.input))
    for name in needs:
        if name not in known and not any(name in names for names in outer):
            raise _missing(name, f"node {label(node)!r}", label(node))
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            needs |= _check_graph(body, (*outer, known))
    return needs


def label(node: onnx.NodeProto) -> str:
    """What a node is called in a refusal."""
    return node.name or next(iter(node.output), "") or node.op_type


def _refuse_duplicates(what: str, names: list[str]) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 1))
    if count > 1:
        raise _twice(f"two {what} are called {name!r}", name)


def _twice(what: str, node: str) -> SlimlineError:
    return SlimlineError(
        "NAME_DUPLICATE", what, node=node, hint="every value needs one name of its own; export it again"
    )


def _missing(name: str, reader: str, node: str | None) -> SlimlineError:
    return SlimlineError("VALUE_MISSING", f"{reader} needs {name!r}, which nothing makes", node=node, hint=_HINT)
