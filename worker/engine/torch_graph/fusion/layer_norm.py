"""Layer normalization over the last axis, as exporters wrote it out before opset 17."""

from functools import partial

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.graph import shapes
from worker.engine.torch_graph.fusion.pattern import Fused, before, lone_number, partner
from worker.engine.torch_graph.scope import Scope


def match_layer_norm(scope: Scope, node: ir.Node) -> Fused | None:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias, scale and bias stored vectors."""
    for bias in filter(partial(_is_vector, scope), node.inputs):
        product = before(scope, partner(scope, node, bias), "Mul")
        if product is None:
            continue
        for scale in filter(partial(_is_vector, scope), product.inputs):
            normalized = before(scope, partner(scope, product, scale), "Div")
            found = _match_normalized(scope, normalized) if normalized is not None else None
            if found is not None and _spans(found[0], scale, bias):
                x, epsilon = found
                return Fused(partial(_layer_norm, epsilon=epsilon), (x, scale, bias))
    return None


def _spans(x: ir.Value, *vectors: ir.Value | None) -> bool:
    """Whether the vectors are as long as the last axis of `x`: torch does not broadcast them."""
    known = shapes.dims(x)
    return known is not None and all(shapes.dims(vector) == known[-1:] for vector in vectors)


def _layer_norm(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, *, epsilon: float) -> torch.Tensor:
    return F.layer_norm(x, scale.shape, scale, bias, epsilon)


def _is_vector(scope: Scope, value: ir.Value | None) -> bool:
    value = scope.resolve(value)
    return value is not None and scope.weight(value) is not None and value.shape is not None and value.shape.rank() == 1


def _match_normalized(scope: Scope, division: ir.Node) -> tuple[ir.Value, float] | None:
    """X and epsilon where `division` is (x - mean) / sqrt(variance + epsilon)."""
    centred = before(scope, division.inputs[0], "Sub")
    root = before(scope, division.inputs[1], "Sqrt")
    total = before(scope, root.inputs[0], "Add") if root is not None else None
    if centred is None or total is None or len(total.inputs) != 2:  # noqa: PLR2004 - of two operands
        return None
    for index, value in enumerate(total.inputs):
        epsilon = lone_number(scope, value)
        variance = before(scope, total.inputs[1 - index], "ReduceMean")
        square = before(scope, variance.inputs[0], "Pow", "Mul") if variance is not None else None
        if epsilon is None or variance is None or square is None or not _is_last_axis(scope, variance):
            continue
        x = scope.resolve(centred.inputs[0])
        mean = before(scope, centred.inputs[1], "ReduceMean")
        if x is None or mean is None or scope.resolve(mean.inputs[0]) is not x or not _is_last_axis(scope, mean):
            return None
        return (x, epsilon) if _is_square_of(scope, square, x, scope.resolve(mean.outputs[0])) else None
    return None


def _is_square_of(scope: Scope, square: ir.Node, x: ir.Value, mean: ir.Value | None) -> bool:
    """Whether `square` is (x - mean)^2. Exporters may write the difference twice."""
    bases = square.inputs if square.op_type == "Mul" else square.inputs[:1]
    if square.op_type == "Pow" and lone_number(scope, square.inputs[1]) != 2:  # noqa: PLR2004 - a square
        return False
    differences = [before(scope, base, "Sub") for base in bases]
    return all(each is not None and list(map(scope.resolve, each.inputs)) == [x, mean] for each in differences)


def _is_last_axis(scope: Scope, mean: ir.Node) -> bool:
    keeps = mean.attributes.get("keepdims")
    axes = mean.attributes.get("axes")
    given = list(axes.as_ints()) if axes else scope.constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
    rank = mean.inputs[0].shape.rank() if mean.inputs[0] is not None and mean.inputs[0].shape is not None else None
    return (keeps is None or keeps.as_int() == 1) and given in ([-1], [rank - 1] if rank else [-1])
