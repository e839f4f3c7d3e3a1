"""Reductions over axes, and the positions of extremes. Running totals are in `cumulative`."""

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add, mul
from typing import Any

import torch

from worker.engine.torch_graph.host import as_list
from worker.engine.torch_graph.kernels import host_arithmetic, unsigned
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator

Reduction = Callable[..., torch.Tensor]
"""(x, at least one axis, keepdim=whether axes stay with size 1) -> of the same type as x."""


def _sum(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keepdim, dtype=x.dtype)


def _sum_square(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    return _sum(x * x, axes, keepdim=keepdim)


def _prod(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim, dtype=x.dtype)
    return x


def _log_sum(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keepdim).log()


def _max(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    return _never_empty(x, axes, _limits(x.dtype)[0]).amax(axes, keepdim=keepdim)


def _min(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    return _never_empty(x, axes, _limits(x.dtype)[1]).amin(axes, keepdim=keepdim)


def _mean_whole(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    """The fraction is lost."""
    count = reduce(mul, (x.shape[axis] for axis in axes))
    if x.dtype in unsigned.WIDE:
        total = _sum(x.to(torch.int64), axes, keepdim=keepdim).to(x.dtype)
        return unsigned.quotient(total, torch.full_like(total, count))
    return torch.div(_sum(x, axes, keepdim=keepdim), count, rounding_mode="trunc")


def _l1_whole(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    if x.dtype in unsigned.WIDE:
        return _sum(x.to(torch.int64), axes, keepdim=keepdim).to(x.dtype)
    return _sum(x.abs(), axes, keepdim=keepdim)


def _l2_whole(x: torch.Tensor, axes: list[int], *, keepdim: bool) -> torch.Tensor:
    """The root of a sum of 64 bits, without its fraction. Squares wrap in their type."""
    wide = x.to(torch.int64)
    total = (wide * wide).to(x.dtype).to(torch.int64).sum(axes, keepdim=keepdim)
    if x.dtype is torch.uint64:
        total = total.view(torch.uint64)
    return total.double().sqrt().to(x.dtype)


_FLOAT: Mapping[str, Reduction] = {
    "ReduceL1": lambda x, axes, *, keepdim: torch.linalg.vector_norm(x, 1, axes, keepdim=keepdim),
    "ReduceL2": lambda x, axes, *, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim=keepdim),
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": _max,
    "ReduceMean": torch.mean,
    "ReduceMin": _min,
    "ReduceProd": _prod,
    "ReduceSum": torch.sum,
    "ReduceSumSquare": _sum_square,
}
_WHOLE: Mapping[str, Reduction] = {
    "ReduceL1": _l1_whole,
    "ReduceL2": _l2_whole,
    "ReduceMax": _max,
    "ReduceMean": _mean_whole,
    "ReduceMin": _min,
    "ReduceProd": _prod,
    "ReduceSum": _sum,
    "ReduceSumSquare": _sum_square,
}
_HOST: Mapping[str, Callable[[list[Any]], Any]] = {
    "ReduceMax": lambda numbers: host_arithmetic.largest(*numbers),
    "ReduceMin": lambda numbers: host_arithmetic.smallest(*numbers),
    "ReduceProd": lambda numbers: reduce(mul, numbers, 1),
    "ReduceSum": lambda numbers: reduce(add, numbers, 0),
}


@operator(*_FLOAT, host=(1,))
def reduction(node: Node) -> Run:
    """Over `axes`, an attribute or an input. Without any: over all, or with `noop_with_empty_axes` over none.

    Over none each element stands for itself: its sum of squares is its square. Empty sets give the neutral element.
    """
    dtype, on_float = node.input_type(0), _over_axes(node, _FLOAT[node.op])
    if dtype is not None and dtype.is_floating_point():
        return on_float
    if node.op not in _WHOLE:
        raise node.refuse("logarithms of whole numbers are not in their type", "cast the input to float")
    on_whole = _for_unsigned(node, _over_axes(node, _WHOLE[node.op]))
    return (
        on_whole if dtype is not None else lambda x, *axes: (on_float if x.is_floating_point() else on_whole)(x, *axes)
    )


@operator("ArgMax", "ArgMin")
def position(node: Node) -> Run:
    """Of the first extreme along `axis`, or with `select_last_index` of the last."""
    find = torch.argmax if node.op == "ArgMax" else torch.argmin
    axis, keepdim = node.get("axis", 0), bool(node.get("keepdims", 1))
    if not node.get("select_last_index", 0):
        return unsigned.compared(node, lambda x: find(x, axis, keepdim=keepdim))
    return unsigned.compared(node, lambda x: x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keepdim))


@host_rule(*_HOST)
def reduction_host(node: Node) -> Run | None:
    """Of a vector."""
    function, keepdim = host_arithmetic.wrapping(_HOST[node.op], node), node.get("keepdims", 1)
    axes = node.get("axes", node.constant(1))
    if node.rank(0) != 1 or (axes is None and node.has(1)):
        return None
    if not axes and node.get("noop_with_empty_axes", 0):
        return lambda numbers, *_: numbers
    return lambda numbers, *_: [function(numbers)] if keepdim else function(numbers)


def _over_axes(node: Node, function: Reduction) -> Run:
    fixed, keepdim = node.get("axes"), bool(node.get("keepdims", 1))
    reduces_none = node.get("noop_with_empty_axes", 0)

    def run(x: torch.Tensor, axes: Any = None) -> torch.Tensor:
        chosen = fixed if axes is None else as_list(axes)
        if chosen:
            return function(x, chosen, keepdim=keepdim)
        if reduces_none or x.dim() == 0:
            return function(x.unsqueeze(-1), [-1], keepdim=False)
        return function(x, list(range(x.dim())), keepdim=keepdim)

    return run


def _for_unsigned(node: Node, run: Run) -> Run:
    match node.op:
        case "ReduceProd" | "ReduceSum" | "ReduceSumSquare":
            return on_bits(node, run)
        case "ReduceMax" | "ReduceMin":
            return unsigned.ordered(node, run)
        case _:
            return run


def _never_empty(x: torch.Tensor, axes: list[int], neutral: float) -> torch.Tensor:
    """`x`, or one neutral element where there is nothing to reduce."""
    if all(x.shape[axis] for axis in axes):
        return x
    reduced = {axis % x.dim() for axis in axes}
    return x.new_full([1 if axis in reduced else size for axis, size in enumerate(x.shape)], neutral)


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    """Lowest and highest value; infinities where there are any."""
    if dtype.is_floating_point:
        return -torch.inf, torch.inf
    return (False, True) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
