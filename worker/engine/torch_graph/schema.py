"""Whether a node is as its operator's schema says: how many inputs and outputs, which attributes, which types."""

from functools import cache

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.node import Node

_HINT = "export the model again; onnx.checker.check_model shows more"


def check_node(node: Node) -> None:
    """Raises SlimlineError GRAPH_INVALID or TYPES_CLASH for a node that breaks its schema.

    Types that torch would promote would be silently wrong. What is not known is not judged, nor other domains.
    """
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op, node.version, ""):
        return
    schema = onnx.defs.get_schema(node.op, node.version, "")
    for what, count, least, most in (
        ("inputs", len(node.given), schema.min_input, schema.max_input),
        ("outputs", len(node.wanted), schema.min_output, schema.max_output),
    ):
        if not least <= count <= most:
            raise SlimlineError("GRAPH_INVALID", f"{node.op} has {count} {what}", node=node.name, hint=_HINT)
    for name, attribute in schema.attributes.items():
        if attribute.required:
            node.need(name)
    _check_types(node)


def _check_types(node: Node) -> None:
    rules = _rules(node.op, node.version)
    bound: dict[str, ir.DataType] = {}
    for index, dtype in enumerate(node.input_types if rules else ()):
        if dtype is None:
            continue
        variable, allowed = rules[min(index, len(rules) - 1)]
        if dtype not in allowed:
            raise _clash(node, f"input {index} is {dtype.name.lower()}, which it does not take")
        if variable and bound.setdefault(variable, dtype) is not dtype:
            raise _clash(node, f"input {index} is {dtype.name.lower()} beside {bound[variable].name.lower()}")


@cache
def _rules(op: str, version: int) -> tuple[tuple[str, frozenset[ir.DataType]], ...]:
    """For each formal input: the type variable it shares with others, and the types it takes. None for sequences."""
    schema = onnx.defs.get_schema(op, version, "")
    if any("seq(" in kind or "optional(" in kind for formal in schema.inputs for kind in formal.types):
        return ()
    return tuple(
        (formal.type_str if formal.is_homogeneous else "", frozenset(map(_dtype, formal.types)))
        for formal in schema.inputs
    )


def _dtype(kind: str) -> ir.DataType:
    return ir.DataType[kind.removeprefix("tensor(").removesuffix(")").upper()]


def _clash(node: Node, what: str) -> SlimlineError:
    return SlimlineError(
        "TYPES_CLASH", f"{node.op}: {what}", node=node.name, hint="put a Cast between them, or export the model again"
    )
