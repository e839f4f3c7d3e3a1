"""Comparisons, logic on truth values, and the choice between two tensors."""

import operator as python
from collections.abc import Callable, Mapping
from typing import Any

import torch

from worker.engine.torch_graph.kernels import unsigned
from worker.engine.torch_graph.kernels.host_arithmetic import elementwise
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator

_COMPARISONS: Mapping[str, tuple[Callable[..., torch.Tensor], Callable[[Any, Any], Any]]] = {
    "Equal": (torch.eq, python.eq),
    "Greater": (torch.gt, python.gt),
    "GreaterOrEqual": (torch.ge, python.ge),
    "Less": (torch.lt, python.lt),
    "LessOrEqual": (torch.le, python.le),
}
# `&` and `sym_not` keep a symbolic truth value open, where `and` and `not` would fix it.
_LOGIC: Mapping[str, tuple[Callable[..., torch.Tensor], Callable[..., Any]]] = {
    "And": (torch.logical_and, python.and_),
    "Not": (torch.logical_not, torch.sym_not),
    "Or": (torch.logical_or, python.or_),
    "Xor": (torch.logical_xor, python.ne),
}


@operator(*_COMPARISONS)
def comparison(node: Node) -> Run:
    """Truth values."""
    return unsigned.compared(node, _COMPARISONS[node.op][0])


@operator(*_LOGIC)
def logic(node: Node) -> Run:
    """Of truth values."""
    return _LOGIC[node.op][0]


@operator("Where")
def where(_: Node) -> Run:
    """The second input where the first holds, the third elsewhere."""
    return torch.where


@operator("IsNaN")
def is_nan(_: Node) -> Run:
    """For every float type."""
    return lambda x: torch.isnan(_comparable(x))


@operator("IsInf")
def is_inf(node: Node) -> Run:
    """`detect_positive` and `detect_negative` say which infinities count."""
    match bool(node.get("detect_negative", 1)), bool(node.get("detect_positive", 1)):
        case True, True:
            return lambda x: torch.isinf(_comparable(x))
        case True, False:
            return lambda x: torch.isneginf(_comparable(x))
        case False, True:
            return lambda x: torch.isposinf(_comparable(x))
    return lambda x: torch.zeros_like(x, dtype=torch.bool)


@host_rule(*_COMPARISONS)
def comparison_host(node: Node) -> Run:
    """As for tensors."""
    return elementwise(_COMPARISONS[node.op][1])


@host_rule(*_LOGIC)
def logic_host(node: Node) -> Run:
    """As for tensors."""
    return elementwise(_LOGIC[node.op][1])


@host_rule("Where")
def where_host(_: Node) -> Run:
    """As for tensors."""
    return elementwise(lambda condition, x, y: x if condition else y)


def _comparable(x: torch.Tensor) -> torch.Tensor:
    """8-bit floats have no kernels that test them."""
    return x.float() if x.dtype.itemsize == 1 else x
