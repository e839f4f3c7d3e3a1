"""What an integer kernel multiplies by: a weight, in the order of axes the kernel reads. No numbers are read here."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import onnx_ir as ir

from worker.engine.graph.layers import trace_weight


class Part(NamedTuple):
    """One matrix of a stack, `number` along the first axis, and its columns from `begin` to `end`."""

    number: int
    begin: int
    end: int


@dataclass(frozen=True)
class Operand:
    """A weight as a kernel reads it: axis i is axis `order[i]` of the initializer, then `part` of that if any.

    A scale may differ along the axes `kept`, which are those of the initializer; the kernel sums over the others.
    """

    weight: ir.Value
    order: tuple[int, ...]
    kept: frozenset[int]
    part: Part | None = None

    def size(self, axis: int) -> int:
        """Along an axis of what the kernel reads, `part` not taken."""
        return int(self.weight.shape.numpy()[self.order[axis]]) if self.weight.shape else 0

    def only(self, number: int, begin: int, end: int) -> "Operand":
        """One matrix of a stack, or some columns of it."""
        return replace(self, part=Part(number, begin, end))


def operand_at(node: ir.Node, slot: int, axes: tuple[int, ...], kept: tuple[int, ...]) -> Operand:
    """The weight at input `slot` with its axes rearranged to `axes`, of which `kept` may have scales of their own.

    Both count the axes of what arrives at the input, through whatever Transpose. Raises ValueError for no weight.
    """
    traced = trace_weight(node.inputs[slot])
    if traced is None:
        raise ValueError(f"{node.name} has no constant weight at input {slot}")
    weight, order = traced
    return Operand(weight, tuple(order[axis] for axis in axes), frozenset(order[axis] for axis in kept))
