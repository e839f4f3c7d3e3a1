"""uint16, uint32 and uint64 by the signed kernels: torch stores these types but computes little with them.

Order is kept by flipping the top bit; quotients and shifts go through a wider type, or for 64 bits through halves.
What is the same signed or unsigned (moves, sums, products) is in `bits`.
"""

from collections.abc import Callable
from typing import Any

import torch

from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.bits import in_order
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run

WIDE = frozenset({torch.uint16, torch.uint32, torch.uint64})


def ordered(node: Node, run: Run) -> Run:
    """`run`, which picks elements by their order (smallest, largest, clamped), for every type of input 0."""

    def unsigned(*inputs: Any) -> torch.Tensor:
        signed: torch.Tensor = run(*map(_in_order, inputs))
        return from_order(signed, _element_type(inputs))

    return instead(node, run, unsigned)


def compared(node: Node, run: Run) -> Run:
    """`run`, which compares elements and gives none (truth values, positions), for every type of input 0."""
    return instead(node, run, lambda *inputs: run(*map(_in_order, inputs)))


def instead(node: Node, run: Run, unsigned: Run) -> Run:
    """`run`, or for the wide unsigned types `unsigned`: chosen now where the type of input 0 is known."""
    dtype = node.input_type(0)
    if dtype is not None:
        return unsigned if held_as(dtype) in WIDE else run
    return lambda *inputs: (unsigned if _element_type(inputs) in WIDE else run)(*inputs)


def from_order(x: torch.Tensor, unsigned: torch.dtype) -> torch.Tensor:
    """What `bits.in_order` undoes."""
    return (x ^ torch.iinfo(x.dtype).min).view(unsigned)


def quotient(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The quotient without its fraction."""
    if a.dtype is not torch.uint64:
        return torch.div(a.long(), b.long(), rounding_mode="trunc").to(a.dtype)
    return _quotient64(a.view(torch.int64), b.view(torch.int64)).view(torch.uint64)


def remainder(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What the division of a by b leaves."""
    if a.dtype is not torch.uint64:
        return torch.remainder(a.long(), b.long()).to(a.dtype)
    x, y = a.view(torch.int64), b.view(torch.int64)
    return (x - _quotient64(x, y) * y).view(torch.uint64)


def shift_left(a: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Bits that leave are lost: all of them for as many steps as the type has bits, or more."""
    return _shift(torch.bitwise_left_shift, a, steps)


def shift_right(a: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Zeros come in from above."""
    return _shift(_shift_right64, a, steps)


def _shift(shift: Callable[..., torch.Tensor], a: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    wide, counts = a.to(torch.int64), steps.to(torch.int64)
    fits = (counts >= 0) & (counts < torch.iinfo(a.dtype).bits)  # a uint64 count beyond int64 looks negative
    return torch.where(fits, shift(wide, torch.where(fits, counts, 0)), 0).to(a.dtype)


def _quotient64(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """On the bits: divide half of a, double, correct by at most one. A b with its top bit set goes in once or not."""
    half = torch.div(_shift_right64(a, 1), torch.where(b < 0, 1, b), rounding_mode="trunc")
    guess = half << 1
    guess = guess + _is_at_least(a - guess * b, b)
    return torch.where(b < 0, _is_at_least(a, b).long(), guess)


def _is_at_least(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return in_order(a.view(torch.uint64)) >= in_order(b.view(torch.uint64))


def _shift_right64(x: torch.Tensor, steps: Any) -> torch.Tensor:
    """The arithmetic shift, without the copies of the top bit it brings in."""
    shifted: torch.Tensor = (x >> steps) & ~((-1 << (63 - steps)) << 1)
    return shifted


def _in_order(x: Any) -> Any:
    return in_order(x) if isinstance(x, torch.Tensor) else x


def _element_type(inputs: tuple[Any, ...]) -> torch.dtype:
    return next(x.dtype for x in inputs if isinstance(x, torch.Tensor))
