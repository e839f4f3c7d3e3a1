"""Parts of a tensor along its axes: slices, windows, triangles, reversals. Positions in tensors: `indexing.py`."""

from dataclasses import dataclass
from typing import Any

import torch

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.host import as_list, as_scalar
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator

_RANGES_ARE_INPUTS = 10
"""The opset from which starts, ends, axes and steps are inputs of Slice."""


@dataclass(frozen=True)
class _Span:
    """One axis of a Slice."""

    axis: int
    start: int
    end: int
    step: int

    def backwards(self, size: int) -> slice:
        """What a negative step takes from an axis of `size`, as a slice of the axis in reverse."""
        first = min(max(self.start + size if self.start < 0 else self.start, 0), size - 1)
        last = min(max(self.end + size if self.end < 0 else self.end, -1), size - 1)
        return slice(size - 1 - first, size - 1 - last, -self.step)

    def forwards(self) -> slice:
        """What a positive step takes: Python clamps as the operator does."""
        return slice(self.start, self.end, self.step)


def _spans(starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> list[_Span]:
    starts = as_list(starts)
    axes = range(len(starts)) if axes is None else as_list(axes)
    steps = [1] * len(starts) if steps is None else as_list(steps)
    return [_Span(*span) for span in zip(axes, starts, as_list(ends), steps, strict=True)]


@operator("Slice", host=(1, 2, 3, 4))
def slice_(node: Node) -> Run:
    """From `starts` to before `ends` in `steps`; attributes before opset 10."""
    if node.version < _RANGES_ARE_INPUTS:
        known = _spans(node.need("starts"), node.need("ends"), node.get("axes"))
    elif all(node.constant(i) is not None for i in range(1, len(node.given)) if node.has(i)):
        known = _spans(*node.constants[1:])
    else:
        return on_bits(node, lambda x, *numbers: _slice(x, _spans(*numbers)))
    rank = node.rank(0)
    if rank is None or any(span.step < 0 for span in known):
        return on_bits(node, lambda x, *_: _slice(x, known))
    index = _index(known, rank)
    return lambda x, *_: x[index]


def _slice(x: torch.Tensor, spans: list[_Span]) -> torch.Tensor:
    """An axis with a negative step is flipped: torch has none."""
    x = x[_index([span for span in spans if span.step > 0], x.ndim)]
    for span in spans:
        if span.step < 0:
            x = x.flip(span.axis)[_index_of(span.axis, span.backwards(x.shape[span.axis]), x.ndim)]
    return x


def _index(spans: list[_Span], rank: int) -> tuple[slice, ...]:
    index = [slice(None)] * rank
    for span in spans:
        index[span.axis] = span.forwards()
    return tuple(index)


def _index_of(axis: int, part: slice, rank: int) -> tuple[slice, ...]:
    index = [slice(None)] * rank
    index[axis] = part
    return tuple(index)


@host_rule("Slice")
def slice_host(node: Node) -> Run | None:
    """Part of a vector."""
    if node.rank(0) != 1 or node.version < _RANGES_ARE_INPUTS:
        return None

    def run(x: list[Any], *numbers: Any) -> list[Any]:
        (span,) = _spans(*numbers)
        return x[::-1][span.backwards(len(x))] if span.step < 0 else x[span.forwards()]

    return run


@operator("CenterCropPad", host=(1,))
def center_crop_pad(node: Node) -> Run:
    """The middle of each axis, or the axis in the middle of zeros; an odd element is cropped, or added, at the end."""
    axes = node.get("axes")

    def run(x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        margins = [[0, 0] for _ in x.shape]
        for axis, size in zip(range(x.ndim) if axes is None else axes, sizes, strict=True):
            missing = size - x.shape[axis]
            before = missing // 2 if missing > 0 else -(-missing // 2)
            margins[axis] = [before, missing - before]
        check_size([n + sum(margin) for n, margin in zip(x.shape, margins, strict=True)], x.dtype)
        return torch.constant_pad_nd(x, [n for margin in reversed(margins) for n in margin])

    return run


@operator("Trilu", host=(1,))
def trilu(node: Node) -> Run:
    """The upper (or lower) triangle of each matrix, from diagonal `k` on; zeros elsewhere."""
    triangle = torch.triu if node.get("upper", 1) else torch.tril
    return on_bits(node, lambda x, k=None: triangle(x, 0 if k is None else as_scalar(k)))


@operator("ReverseSequence")
def reverse_sequence(node: Node) -> Run:
    """The first `sequence_lens[b]` steps of sequence b in reverse; the rest stays."""
    batch_axis, time_axis = node.get("batch_axis", 1), node.get("time_axis", 0)
    if sorted([batch_axis, time_axis]) != [0, 1]:
        raise node.refuse(f"batch axis {batch_axis} with time axis {time_axis}", "use 0 and 1")

    def run(x: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:  # noqa: N803 - B sequences, T steps
        step_T = torch.arange(x.shape[time_axis], device=x.device)  # noqa: N806
        step_BT = torch.where(step_T < lengths_B[:, None], lengths_B[:, None] - 1 - step_T, step_T)  # noqa: N806
        index = step_BT if time_axis == 1 else step_BT.mT
        return x.gather(time_axis, index.reshape(*index.shape, *[1] * (x.ndim - 2)).expand(x.shape))

    return on_bits(node, run)
