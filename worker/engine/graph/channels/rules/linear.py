"""Matrix products. What is summed over may go where one factor is zero there when masked."""

from collections.abc import Sequence

import onnx_ir as ir

from worker.engine.graph.channels.rules.broadcasting import spans, tie
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, attribute, called

_MATRIX = 2
_BIAS = 2


def contract(walk: Walk, node: ir.Node, labels: Labels, *others: Labels) -> None:
    """Sum over indices that `labels` and `others` share; `node` reads the factors as its first inputs."""
    for other in others:
        walk.unite(other, labels)
    if not any(walk.is_zero(value) for value in node.inputs[: 1 + len(others)]):
        walk.block(labels, f"{called(node)} multiplies two computed tensors, and neither would be zero where masked")


@rule("Gemm")
def _gemm(walk: Walk, node: ir.Node) -> None:
    left, right = (walk.known_axes(value) for value in node.inputs[:2])
    bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    added = walk.known_axes(bias)
    if left is None or right is None or (bias is not None and added is None):
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    rows, summed = left[::-1] if attribute(node, "transA", 0) else left
    other, columns = right[::-1] if attribute(node, "transB", 0) else right
    contract(walk, node, summed, other)
    made = [rows, columns]
    zero = all(
        walk.is_zero(value) or not walk.is_free(labels) for value, labels in zip(node.inputs, made, strict=False)
    )
    if bias is not None and added is not None:
        tie(walk, added, made)
        zero = zero and walk.is_zero(bias) and spans(walk, bias, made)
    return walk.give(node.outputs[0], made, zero=zero)


@rule("MatMul")
def _product(walk: Walk, node: ir.Node) -> None:
    """A vector has neither rows nor columns."""
    left, right = (walk.known_axes(value) for value in node.inputs)
    if left is None or right is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    contract(walk, node, left[-1], right[-_MATRIX:][0])
    rows, columns = left[-_MATRIX:-1], right[-1:] if len(right) > 1 else []
    operands = left[:-_MATRIX], right[:-_MATRIX]
    batch = [_joined(walk, operands, back) for back in range(max(map(len, operands)), 0, -1)]
    zeros = [walk.is_zero(value) for value in node.inputs]
    zero = (
        (zeros[0] or not any(map(walk.is_free, rows)))
        and (zeros[1] or not any(map(walk.is_free, columns)))
        and all(
            not walk.is_free(labels) or _is_any_zero(zeros, operands, back, len(labels))
            for back, labels in enumerate(reversed(batch), 1)
        )
    )
    return walk.give(node.outputs[0], [*batch, *rows, *columns], zero=zero)


def _joined(walk: Walk, operands: Sequence[Axes], back: int) -> Labels:
    """A batch axis, counted from the last: one operand may have a single index there, or not have it at all."""
    parts = [axes[-back] for axes in operands if len(axes) >= back]
    longest = max(parts, key=len)
    for labels in parts:
        if len(labels) == len(longest):
            walk.unite(labels, longest)
    return longest


def _is_any_zero(zeros: Sequence[bool], operands: Sequence[Axes], back: int, size: int) -> bool:
    """Whether one of the operands that span a batch axis is zero where masked."""
    return any(
        zero and len(axes) >= back and len(axes[-back]) == size for zero, axes in zip(zeros, operands, strict=True)
    )
