"""GELU, SiLU and hard swish as exporters write them out: torch's own keep one tensor for the gradient, not three."""

import math

import onnx_ir as ir
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.fusion.pattern import Fused, before, partner, with_number
from worker.engine.torch_graph.scope import Scope


def match_activation(scope: Scope, node: ir.Node) -> Fused | None:
    """The activation whose last product `node` is."""
    return _match_gated(scope, node) or _match_gelu(scope, node)


def _match_gated(scope: Scope, node: ir.Node) -> Fused | None:
    """X * sigmoid(x), and x * hard_sigmoid(x) with the slope of hard swish."""
    for gate in node.inputs:
        x = partner(scope, node, gate)
        sigmoid = before(scope, gate, "Sigmoid", "HardSigmoid")
        if sigmoid is None or x is None or scope.resolve(sigmoid.inputs[0]) is not x:
            continue
        if sigmoid.op_type == "Sigmoid":
            return Fused(F.silu, (x,))
        slope = sigmoid.attributes.get("alpha")
        shift = sigmoid.attributes.get("beta")
        if slope and math.isclose(slope.as_float(), 1 / 6, rel_tol=1e-6) and (not shift or shift.as_float() == 0.5):  # noqa: PLR2004 - the formula's
            return Fused(F.hardswish, (x,))
    return None


def _match_gelu(scope: Scope, node: ir.Node) -> Fused | None:
    """X * (1 + erf(x / sqrt(2))) / 2, whichever way its factors are grouped."""
    product = with_number(scope, node, 0.5)
    last = before(scope, product, "Mul") if product is not None else node
    if last is None:
        return None
    for operand in last.inputs:
        x = _erf_of(scope, operand)
        rest = scope.resolve(partner(scope, last, operand))
        if x is None or rest is None:
            continue
        half = x if product is not None else with_number(scope, before(scope, rest, "Mul"), 0.5)
        if half is x and (product is None or rest is x):
            return Fused(F.gelu, (x,))
    return None


def _erf_of(scope: Scope, value: ir.Value | None) -> ir.Value | None:
    """X where `value` is 1 + erf(x / sqrt(2))."""
    erf = before(scope, with_number(scope, before(scope, value, "Add"), 1.0), "Erf")
    if erf is None:
        return None
    quotient = before(scope, erf.inputs[0], "Div")
    if quotient is not None:
        is_divided = scope.resolve(quotient.inputs[0]) is with_number(scope, quotient, math.sqrt(2))
        return scope.resolve(quotient.inputs[0]) if is_divided else None
    return with_number(scope, before(scope, erf.inputs[0], "Mul"), math.sqrt(0.5))
