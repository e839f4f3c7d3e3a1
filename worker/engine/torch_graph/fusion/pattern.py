"""What matchers share: walking from a node to those before it, and what they give."""

import math
from dataclasses import dataclass

import onnx_ir as ir

from worker.engine.torch_graph.scope import Scope
from worker.engine.torch_graph.table import Run

_NEAR = 1e-6
"""How near a stored constant is to the one of a formula: float32 has seven digits."""


@dataclass(frozen=True)
class Fused:
    """One function over values that stand before a pattern, in place of its last node."""

    run: Run
    inputs: tuple[ir.Value | None, ...]


def before(scope: Scope, value: ir.Value | None, *ops: str) -> ir.Node | None:
    """The default-domain node among `ops` that makes `value`; None where something else does, or it is observed."""
    value = scope.resolve(value)
    node = value.producer() if value is not None and not scope.watches(value) else None
    return node if node is not None and node.op_type in ops and node.domain in ("", "ai.onnx") else None


def partner(scope: Scope, node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The other operand of a node with two; None where `value` is none of them."""
    operands = [scope.resolve(each) for each in node.inputs]
    value = scope.resolve(value)
    if value not in operands or len(operands) != 2:  # noqa: PLR2004 - of two operands
        return None
    return operands[1 - operands.index(value)]


def lone_number(scope: Scope, value: ir.Value | None) -> float | None:
    """The stored number without dimensions that `value` is, None where it is none."""
    number = scope.number(value, is_lone=True)
    return float(number) if isinstance(number, int | float) else None


def with_number(scope: Scope, node: ir.Node | None, number: float) -> ir.Value | None:
    """The operand of `node` beside the stored constant `number`; None where there is no such constant."""
    if node is None:
        return None
    for index, value in enumerate(node.inputs):
        found = lone_number(scope, value)
        if found is not None and math.isclose(found, number, rel_tol=_NEAR):
            return scope.resolve(node.inputs[1 - index])
    return None
