"""softmax(q k^T + mask) v: torch's fused attention keeps no matrix of probabilities for the gradient.

Where -inf masks a whole row it gives 0, as exporters write it: NaN becomes 0 after the softmax. Without that only
attention without a mask is fused.
"""

from functools import partial

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.graph import shapes
from worker.engine.torch_graph.dtypes import TRAINABLE
from worker.engine.torch_graph.fusion.pattern import Fused, before, lone_number
from worker.engine.torch_graph.scope import Scope

_RANK = 4
"""batch, heads, positions, channels."""


def match_attention(scope: Scope, node: ir.Node) -> Fused | None:
    """`node` multiplies probabilities, of a softmax over the last axis, with the values."""
    unmasked = _without_nan(scope, node.inputs[0])
    softmax = before(scope, unmasked or node.inputs[0], "Softmax")
    if softmax is None or not _is_last_axis(softmax):
        return None
    scores, mask = scope.resolve(softmax.inputs[0]), None
    masking = before(scope, scores, "Add")
    if masking is not None and unmasked is not None:
        scores, mask = _split_mask(scope, masking)
    scaling = before(scope, scores, "Mul", "Div")
    scale = _scale(scope, scaling) if scaling is not None else 1.0
    product = before(scope, scaling.inputs[0] if scaling is not None else scores, "MatMul")
    if product is None or scale is None:
        return None
    q, k_transposed = map(scope.resolve, product.inputs)
    v = scope.resolve(node.inputs[1])
    if not _fit(scope, q, k_transposed, v):
        return None
    return Fused(partial(_attend, scale=scale), (q, k_transposed, v, mask))


def _attend(
    q: torch.Tensor, k_transposed: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, *, scale: float
) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k_transposed.transpose(-1, -2), v, attn_mask=mask, scale=scale)


def _without_nan(scope: Scope, value: ir.Value | None) -> ir.Value | None:
    """The probabilities p where `value` is p, or 0 where p is NaN."""
    choice = before(scope, value, "Where")
    is_nan = before(scope, choice.inputs[0], "IsNaN") if choice is not None else None
    if choice is None or is_nan is None or lone_number(scope, choice.inputs[1]) != 0:
        return None
    kept = scope.resolve(choice.inputs[2])
    return kept if scope.resolve(is_nan.inputs[0]) is kept else None


def _split_mask(scope: Scope, masking: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """The scores and what is added to them, where that does not make them larger."""
    for index, value in enumerate(masking.inputs):
        known = shapes.dims(value)
        if (
            before(scope, value, "MatMul", "Mul", "Div")
            and known
            and None not in known
            and known == shapes.dims(masking.outputs[0])
        ):
            return scope.resolve(value), scope.resolve(masking.inputs[1 - index])
    return None, None


def _scale(scope: Scope, scaling: ir.Node) -> float | None:
    number = lone_number(scope, scaling.inputs[1])
    if number is None or number == 0:
        return None
    return number if scaling.op_type == "Mul" else 1 / number


def _fit(scope: Scope, *values: ir.Value | None) -> bool:
    """Whether they are stacks of matrices of one type over the same batch and heads."""
    known = [shapes.dims(value) for value in values]
    leading = [dims[:2] if dims and len(dims) == _RANK else None for dims in known]
    types = {scope.type_of(value) for value in values}
    if leading[0] is None or None in leading[0] or leading.count(leading[0]) != len(leading):
        return False
    return len(types) == 1 and types <= TRAINABLE


def _is_last_axis(softmax: ir.Node) -> bool:
    axis = softmax.attributes.get("axis")
    known = softmax.inputs[0].shape if softmax.inputs[0] is not None else None
    return axis is not None and axis.as_int() in (-1, known.rank() - 1 if known is not None else -1)
