"""Arithmetic of several tensors, broadcast. Functions of one element are in `elementary`, of bits in `bitwise`."""

import operator as python
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.dtypes import TRAINABLE
from worker.engine.torch_graph.kernels import host_arithmetic, unsigned
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.kernels.host_arithmetic import elementwise, wrapping
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator

_RINGS: dict[str, Callable[[Any, Any], Any]] = {"Add": python.add, "Sub": python.sub, "Mul": python.mul}
_INPUTS_BECAME_LIMITS = 11


@operator("Add", "Sub", "Mul")
def ring(node: Node) -> Run:
    """Whole numbers wrap."""
    return on_bits(node, _RINGS[node.op])


@operator("Div")
def div(node: Node) -> Run:
    """Quotients of whole numbers lose their fraction."""
    dtype = node.input_type(0)
    if dtype is not None and dtype.is_floating_point():
        return torch.div
    return unsigned.instead(node, _divide, unsigned.quotient)


@operator("Mod")
def mod(node: Node) -> Run:
    """The remainder has the sign of the divisor, or with `fmod` that of the dividend."""
    run = torch.fmod if node.get("fmod", 0) else torch.remainder
    return unsigned.instead(node, run, unsigned.remainder)


@operator("Pow")
def pow_(node: Node) -> Run:
    """The result has the type of the base, whatever the exponent's is."""
    base, exponent = node.input_type(0), node.constant(1)
    if base is None or not base.is_floating_point():
        return _power
    if isinstance(exponent, int | float):
        return lambda x, _: x.pow(exponent)
    return torch.pow if base == node.input_type(1) else _power


@operator("Sum", "Max", "Min", "Mean")
def variadic(node: Node) -> Run:
    """One after the other, broadcast; a lone input stays as it is."""
    match node.op:
        case "Max":
            return unsigned.ordered(node, lambda *parts: reduce(torch.maximum, parts))
        case "Min":
            return unsigned.ordered(node, lambda *parts: reduce(torch.minimum, parts))
        case "Sum":
            return lambda *parts: reduce(torch.add, parts)
        case _:
            return lambda *parts: reduce(torch.add, parts) / len(parts)


@operator("Clip")
def clip(node: Node) -> Run:
    """min(high, max(low, x)): `high` wins where they cross. Either may be missing."""
    if node.version < _INPUTS_BECAME_LIMITS:
        return _limited(node, node.get("min"), node.get("max"))
    low, high = node.constant(1), node.constant(2)
    if (low is not None) == node.has(1) and (high is not None) == node.has(2):
        return _limited(node, low, high)
    return unsigned.ordered(node, lambda x, low=None, high=None: x.clamp(low, high))


@host_rule("Add", "Sub", "Mul")
def ring_host(node: Node) -> Run:
    """As for tensors."""
    return elementwise(wrapping(_RINGS[node.op], node))


@host_rule("Div")
def div_host(node: Node) -> Run:
    """Toward zero."""
    return elementwise(wrapping(host_arithmetic.divide, node))


@host_rule("Mod")
def mod_host(node: Node) -> Run:
    """As for tensors."""
    fmod = node.get("fmod", 0)
    return elementwise(host_arithmetic.truncated_remainder if fmod else host_arithmetic.floored_remainder)


@host_rule("Neg", "Abs")
def signs_host(node: Node) -> Run:
    """-x and |x|."""
    return elementwise(wrapping(python.neg if node.op == "Neg" else abs, node))


@host_rule("Sum", "Max", "Min")
def variadic_host(node: Node) -> Run:
    """Of any number of inputs."""
    functions: dict[str, Callable[..., Any]] = {
        "Sum": lambda *x: sum(x),
        "Max": host_arithmetic.largest,
        "Min": host_arithmetic.smallest,
    }
    return elementwise(wrapping(functions[node.op], node))


def _limited(node: Node, low: float | None, high: float | None) -> Run:
    if low is None and high is None:
        return lambda x, *_: x
    if low is not None and high is not None and low <= high and node.input_type(0) in TRAINABLE:
        # The gradient of nn.ReLU6, which is four times as fast as that of clamp.
        return lambda x, *_: F.hardtanh(x, low, high)
    return lambda x, *_: x.clamp(low, high)


def _divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.dtype.is_floating_point:
        return torch.div(a, b)
    # The smallest number by -1 overflows, which ends the process on x86. There are no negative uint8.
    if a.dtype is torch.uint8:
        return torch.div(a, b, rounding_mode="trunc")
    is_minus = b == -1
    return torch.where(is_minus, -a, torch.div(a, torch.where(is_minus, 1, b), rounding_mode="trunc"))


def _power(base: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """In the wider of two types. A whole number and a fraction meet in float64, as in NumPy."""
    match base.dtype.is_floating_point, exponent.dtype.is_floating_point:
        case False, False:
            wide = torch.int64
        case True, True:
            wide = torch.promote_types(base.dtype, exponent.dtype)
        case _:
            wide = torch.float64
    return torch.pow(base.to(wide), exponent.to(wide)).to(base.dtype)
