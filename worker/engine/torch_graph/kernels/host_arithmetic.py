"""Arithmetic on Python numbers as ONNX does it on whole numbers. Which operator uses which rule is in `operators/`."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import onnx_ir as ir
import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run

_SYMBOLIC_MAX: Callable[[Any, Any], Any] = torch.sym_max
_SYMBOLIC_MIN: Callable[[Any, Any], Any] = torch.sym_min


def elementwise(function: Callable[..., Any]) -> Run:
    """`function` of numbers as a function of scalars and vectors, broadcast."""

    def run(*values: Any) -> Any:
        lengths = [len(value) for value in values if isinstance(value, list)]
        if not lengths:
            return function(*values)
        length = next((each for each in lengths if each != 1), 1)
        return [function(*row) for row in zip(*[_spread(value, length) for value in values], strict=True)]

    return run


def wrapping(function: Callable[..., Any], node: Node) -> Callable[..., Any]:
    """`function` of numbers, its result brought into the range of the node's type as a tensor's elements would be."""
    half = 1 << (31 if node.input_type(0) is ir.DataType.INT32 else 63)

    def wrapped(*numbers: Any) -> Any:
        number = function(*numbers)
        if type(number) is int and not -half <= number < half:  # symbolic sizes are never that large
            return (number + half) % (2 * half) - half
        return number

    return wrapped


def divide(a: Any, b: Any) -> Any:
    """The quotient without its fraction. Raises ValueError for b = 0."""
    if b == 0:
        raise ValueError("a whole number was divided by 0")
    return a // b if (a < 0) == (b < 0) else -(-a // b)


def floored_remainder(a: Any, b: Any) -> Any:
    """With the sign of b. Raises ValueError for b = 0."""
    if b == 0:
        raise ValueError("a whole number was divided by 0")
    return a % b


def truncated_remainder(a: Any, b: Any) -> Any:
    """With the sign of a. Raises ValueError for b = 0."""
    return a - divide(a, b) * b


def largest(*numbers: Any) -> Any:
    """Raises TypeError for none."""
    return reduce(lambda a, b: a if _is_at_least(a, b) else b if _is_at_least(b, a) else _SYMBOLIC_MAX(a, b), numbers)


def smallest(*numbers: Any) -> Any:
    """Raises TypeError for none."""
    return reduce(lambda a, b: b if _is_at_least(a, b) else a if _is_at_least(b, a) else _SYMBOLIC_MIN(a, b), numbers)


def _is_at_least(a: Any, b: Any) -> bool:
    """Whether it is so at every size of a traced graph: a maximum left open stops torch from reasoning about shapes."""
    return statically_known_true(a >= b)


def _spread(value: Any, length: int) -> list[Any]:
    if not isinstance(value, list):
        return [value] * length
    return value * length if len(value) == 1 else value
