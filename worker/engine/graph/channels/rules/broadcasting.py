"""Operators that work element by element, with broadcasting: their operands' indices are one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from worker.engine.graph.channels.table import MICROSOFT, rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk

_ZERO_AT_ZERO = (
    "Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu", "Dropout", "Elu", "Erf",
    "Floor", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu",
    "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_OTHERS = (
    "Acos", "Acosh", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cos", "Cosh", "Equal", "Exp",
    "Greater", "GreaterOrEqual", "HardSigmoid", "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "Mod", "Not", "Or",
    "RandomNormalLike", "RandomUniformLike", "Reciprocal", "Shrink", "Sigmoid", "Softplus", "Xor",
)  # fmt: skip


def broadcast(walk: Walk, values: Sequence[ir.Value], shape: Sequence[int]) -> Axes | None:
    """Unite the labels of `values` along the axes of `shape` that each spans; None where one's shape is not known."""
    known = [axes for value in values if (axes := walk.axes(value)) is not None]
    if len(known) < len(values) or any(len(axes) > len(shape) for axes in known):
        return None
    made = [_spanning(known, back, size) for back, size in zip(range(len(shape), 0, -1), shape, strict=True)]
    if any(not parts for parts in made):
        return None
    for parts in made:
        for labels in parts[1:]:
            walk.unite(labels, parts[0])
    return [parts[0] for parts in made]


def _spanning(operands: Sequence[Axes], back: int, size: int) -> list[Labels]:
    """The labels of the operands that have all of an axis, counted from the last."""
    return [axes[-back] for axes in operands if len(axes) >= back and len(axes[-back]) == size]


def tie(walk: Walk, own: Axes, axes: Axes) -> None:
    """Unite the axes of an operand, aligned at the last, with those of a tensor that they span."""
    for labels, whole in zip(reversed(own), reversed(axes), strict=False):
        if len(labels) == len(whole):
            walk.unite(labels, whole)


def spans(walk: Walk, value: ir.Value, axes: Axes) -> bool:
    """Whether `value` has every index of `axes`, aligned at the last, that may be removed."""
    own = walk.axes(value) or []
    return all(
        not walk.is_free(labels) or (len(own) >= back and len(own[-back]) == len(labels))
        for back, labels in enumerate(reversed(axes), 1)
    )


def join_all(walk: Walk, node: ir.Node) -> Axes | None:
    """Broadcast all inputs; None where that cannot be followed."""
    shape = walk.sizes.of(node.outputs[0])
    return None if shape is None else broadcast(walk, [value for value in node.inputs if value is not None], shape)


@rule(*_ZERO_AT_ZERO)
@rule("Gelu", "QuickGelu", domain=MICROSOFT)
def _zero_at_zero(walk: Walk, node: ir.Node) -> None:
    """f(0) = 0. Further inputs are single numbers, or a type to cast to; a second output has zeros of its own."""
    axes = walk.known_axes(node.inputs[0])
    for index, output in enumerate(node.outputs):
        walk.give(output, axes, zero=index == 0 and walk.is_zero(node.inputs[0]))


@rule("PRelu", "BitShift")
def _zero_where_first_is(walk: Walk, node: ir.Node) -> None:
    """f(0, y) = 0."""
    axes = join_all(walk, node)
    walk.give(node.outputs[0], axes, zero=_is_zero_in(walk, node.inputs[0], axes))


@rule(*_OTHERS)
def _not_zero(walk: Walk, node: ir.Node) -> None:
    walk.give(node.outputs[0], join_all(walk, node))


@rule("Add", "Sub", "Sum", "Max", "Min", "Mean")
@rule("BiasGelu", "FastGelu", domain=MICROSOFT)
def _add(walk: Walk, node: ir.Node) -> None:
    """f(0, 0) = 0."""
    axes = join_all(walk, node)
    zero = all(_is_zero_in(walk, value, axes) for value in node.inputs if value is not None)
    walk.give(node.outputs[0], axes, zero=zero)


def _is_zero_in(walk: Walk, value: ir.Value | None, axes: Axes | None) -> bool:
    """Whether an operand is zero wherever the result, with these axes, is masked."""
    return axes is not None and value is not None and walk.is_zero(value) and spans(walk, value, axes)


@rule("Mul")
def _multiply(walk: Walk, node: ir.Node) -> None:
    axes = join_all(walk, node)
    walk.give(node.outputs[0], axes, zero=any(_is_zero_in(walk, value, axes) for value in node.inputs))


@rule("Div", "Pow")
def _divide(walk: Walk, node: ir.Node) -> None:
    """Zero where the first operand is; a power of it where the exponent is positive."""
    axes, exponent = join_all(walk, node), walk.constant(node, 1)
    is_positive = node.op_type == "Div" or (exponent is not None and bool((exponent > 0).all()))
    walk.give(node.outputs[0], axes, zero=is_positive and _is_zero_in(walk, node.inputs[0], axes))


@rule("Where")
def _choose(walk: Walk, node: ir.Node) -> None:
    axes = join_all(walk, node)
    walk.give(node.outputs[0], axes, zero=all(_is_zero_in(walk, value, axes) for value in node.inputs[1:]))


@rule("Clip")
def _clip(walk: Walk, node: ir.Node) -> None:
    """0 stays 0 where it lies between the bounds."""
    zero = (
        walk.is_zero(node.inputs[0])
        and _has_bound(walk, node, 1, np.less_equal)
        and _has_bound(walk, node, 2, np.greater_equal)
    )
    walk.give(node.outputs[0], walk.known_axes(node.inputs[0]), zero=zero)


def _has_bound(
    walk: Walk, node: ir.Node, index: int, compare: Callable[[NDArray[Any], int], NDArray[np.bool_]]
) -> bool:
    """Whether a bound of Clip is left out, or known and on its side of 0."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return True
    bound = walk.constant(node, index)
    return bound is not None and bool(np.all(compare(bound, 0)))
