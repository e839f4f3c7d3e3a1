"""Whether a node's inputs have types that ONNX allows there: torch would promote them and be silently wrong."""

from functools import cache

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.node import Node


def check_types(node: Node) -> None:
    """Raises SlimlineError TYPES_CLASH for a default-domain node; a type that is not known is not judged."""
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op, node.version, ""):
        return
    rules = _rules(node.op, node.version)
    if rules is None:
        return
    bound: dict[str, ir.DataType] = {}
    for index, dtype in enumerate(node.input_types):
        if dtype is None or not rules:
            continue
        variable, allowed = rules[min(index, len(rules) - 1)]
        if dtype not in allowed:
            raise _clash(node, f"input {index} is {dtype.name.lower()}, which it does not take")
        if variable and bound.setdefault(variable, dtype) is not dtype:
            raise _clash(node, f"input {index} is {dtype.name.lower()} beside {bound[variable].name.lower()}")


@cache
def _rules(op: str, version: int) -> tuple[tuple[str, frozenset[ir.DataType]], ...] | None:
    """For each formal input: the type variable it shares with others, and the types it takes."""
    schema = onnx.defs.get_schema(op, version, "")
    if any("seq(" in kind or "optional(" in kind for formal in schema.inputs for kind in formal.types):
        return None
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
