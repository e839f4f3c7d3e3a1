"""Whether an axis counts attention heads, or anything else that must stay whole beside it. No labels here."""

from collections import deque
from collections.abc import Iterator

import onnx_ir as ir

from worker.engine.graph.channels.regrouping import regroup
from worker.engine.graph.channels.sizes import ShapeOf

_MATRIX = 2
_FAR = 40
"""Nodes looked at from where an axis arises to where it is used."""
_NORMALIZING = frozenset({"InstanceNormalization", "LayerNormalization", "RMSNormalization"})
_PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
"""Behind them axes are others."""


def finds_heads(value: ir.Value, axis: int, shape_of: ShapeOf) -> bool:
    """Whether along `axis`, from the start, of a computed tensor the next products run side by side.

    That is so of heads: products of two computed matrices do not sum over them; and of the groups of a normalization.
    """
    waiting, seen = deque([(value, axis)]), 0
    while waiting and seen < _FAR:
        value, axis = waiting.popleft()
        shape = shape_of(value)
        for user, index in value.uses() if shape else ():
            seen += 1
            if _runs_side_by_side(user, index, axis, len(shape or ())):
                return True
            waiting.extend(_follow(user, index, axis, shape_of))
    return False


def _runs_side_by_side(node: ir.Node, index: int, axis: int, rank: int) -> bool:
    match node.op_type:
        case "MatMul":
            is_batch = axis < rank - _MATRIX
            return is_batch and all(value is not None and not value.is_initializer() for value in node.inputs)
        case "Einsum":
            return _is_batch_letter(node, index, axis - rank)
        case op if op == "Attention" or op in _NORMALIZING:
            return axis == 1
    return False


def _is_batch_letter(node: ir.Node, index: int, axis: int) -> bool:
    left, _, right = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    terms = left.split(",")
    behind_dots = terms[index].rpartition(".")[2]
    letter = behind_dots[axis] if -axis <= len(behind_dots) else "..."
    return len(terms) > 1 and all(letter in term for term in (*terms, right))


def _follow(node: ir.Node, index: int, axis: int, shape_of: ShapeOf) -> Iterator[tuple[ir.Value, int]]:
    """The outputs in which the axis goes on, and where it lies there; nothing where that is not plain."""
    output = node.outputs[0]
    before, after = shape_of(node.inputs[index]), shape_of(output)
    if before is None or after is None:
        return
    match node.op_type:
        case "Transpose":
            order = (
                list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else [*range(len(before))][::-1]
            )
            yield output, order.index(axis)
        case "Split" | "Slice" | "Concat":
            yield from ((each, axis) for each in node.outputs)
        case "Gather" if index == 0 and len(after) == len(before) - 1:
            taken = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(before)
            if taken != axis:
                yield output, axis - (taken < axis)
        case "Reshape" | "Squeeze" | "Unsqueeze":
            yield from ((output, place) for place in _regrouped(before, after, axis))
        case op if op not in _PRODUCTS and len(node.outputs) == 1 and len(after) >= len(before):
            yield output, axis + len(after) - len(before)


def _regrouped(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> Iterator[int]:
    """The axes that hold what the axis held."""
    found = regroup(before, after)
    if found is not None:
        own = set(found.before[axis])
        yield from (place for place, factors in enumerate(found.after) if own & set(factors))
