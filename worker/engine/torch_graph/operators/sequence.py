"""Sequences, held as lists of tensors, and optionals: the value itself, or None. No control flow: see `control`."""

from typing import Any

import torch

from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

Sequence = list[torch.Tensor]


@operator("SequenceConstruct")
def sequence_construct(_: Node) -> Run:
    """The inputs in order."""
    return lambda *tensors: list(tensors)


@operator("SequenceEmpty")
def sequence_empty(_: Node) -> Run:
    """Nothing in it; the type of what may come is the graph's business."""
    return list


@operator("SequenceInsert", host=(2,))
def sequence_insert(_: Node) -> Run:
    """Before `position`, which may be one behind the last; by default at the end."""

    def run(sequence: Sequence, tensor: torch.Tensor, position: Any = None) -> Sequence:
        place = len(sequence) if position is None else as_scalar(position)
        if not -len(sequence) <= place <= len(sequence):
            raise IndexError(f"position {place} is outside a sequence of {len(sequence)}")
        place = place + len(sequence) if place < 0 else place
        return [*sequence[:place], tensor, *sequence[place:]]

    return run


@operator("SequenceErase", host=(1,))
def sequence_erase(_: Node) -> Run:
    """Without the tensor at `position`, by default the last."""

    def run(sequence: Sequence, position: Any = None) -> Sequence:
        left = list(sequence)
        del left[-1 if position is None else as_scalar(position)]
        return left

    return run


@operator("SequenceAt", host=(1,))
def sequence_at(_: Node) -> Run:
    """The tensor at `position`, from the end where negative."""
    return lambda sequence, position: sequence[as_scalar(position)]


@operator("SequenceLength", gives_host=True)
def sequence_length(_: Node) -> Run:
    """How many tensors there are."""
    return len


@operator("SplitToSequence", host=(1,))
def split_to_sequence(node: Node) -> Run:
    """Parts of one size, of which the last may be smaller, or of listed sizes; without `split`, single slices."""
    axis, keeps = node.get("axis", 0), node.get("keepdims", 1)

    def run(x: torch.Tensor, sizes: list[int] | int | None = None) -> Sequence:
        if sizes is None and not keeps:
            return list(x.unbind(axis))
        if x.shape[axis] == 0 and not isinstance(sizes, list):
            return []
        return list(torch.split(x, 1 if sizes is None else sizes, axis))

    return run


@operator("ConcatFromSequence")
def concat_from_sequence(node: Node) -> Run:
    """All tensors, one behind the other along `axis`, or along a new one."""
    axis = node.need("axis")
    join = torch.stack if node.get("new_axis", 0) else torch.cat
    return lambda sequence: join(sequence, axis)


@operator("Optional")
def optional(_: Node) -> Run:
    """The input, or None where there is none."""
    return lambda value=None: value


@operator("OptionalHasElement", gives_host=True)
def optional_has_element(_: Node) -> Run:
    """Whether there is a value."""
    return lambda value=None: value is not None


@operator("OptionalGetElement")
def optional_get_element(_: Node) -> Run:
    """The value, which must be there."""

    def run(value: Any) -> Any:
        if value is None:
            raise ValueError("the optional holds no value")
        return value

    return run
