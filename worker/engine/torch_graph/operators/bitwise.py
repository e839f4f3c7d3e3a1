"""Operators on the bits of whole numbers. Logic on truth values is in `comparison`."""

from collections.abc import Callable, Mapping

import torch

from worker.engine.torch_graph.kernels import unsigned
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_FUNCTIONS: Mapping[str, Callable[..., torch.Tensor]] = {
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
_SHIFTS: Mapping[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "LEFT": (torch.bitwise_left_shift, unsigned.shift_left),
    "RIGHT": (torch.bitwise_right_shift, unsigned.shift_right),
}


@operator(*_FUNCTIONS)
def bitwise(node: Node) -> Run:
    """Bit by bit."""
    return on_bits(node, _FUNCTIONS[node.op])


@operator("BitShift")
def bit_shift(node: Node) -> Run:
    """Zeros, or to the right copies of the sign, come in. A negative count empties like one of all bits."""
    direction = node.need("direction")
    if direction not in _SHIFTS:
        raise node.refuse(f"direction {direction!r} is not one", "use LEFT or RIGHT")
    return unsigned.instead(node, *_SHIFTS[direction])
