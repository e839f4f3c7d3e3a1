"""Sliding windows: the padding arithmetic that convolutions and pools share, plain or quantized. No operator is here.

Per-axis numbers are over the spatial axes; a tuple of one number stands for all axes, as torch reads it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.node import Node

AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")

_larger: Callable[[int, int], int] = torch.sym_max
_smaller: Callable[[int, int], int] = torch.sym_min
# max() would fix the sizes of a traced graph.

Pads = tuple[Sequence[int], Sequence[int]]
"""Numbers of elements added before and after each spatial axis."""


@dataclass(frozen=True)
class Window:
    """How a window slides over the spatial axes of a tensor (N, C, D1, ... Dn)."""

    rank: int | None
    """Number of spatial axes, None where the node does not tell."""
    kernel: tuple[int, ...] | None
    """`kernel_shape`, None where the weight tells it."""
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads
    """Explicit ones: nought where `auto_pad` rules."""
    auto_pad: str

    @property
    def is_same(self) -> bool:
        """Whether pads follow from the sizes: SAME_UPPER or SAME_LOWER."""
        return self.auto_pad.startswith("SAME")


def read_window(node: Node, *, has_spatial_input: bool = True) -> Window:
    """The window attributes of a node. Raises SlimlineError OPERATOR_UNSUPPORTED where they contradict each other.

    `has_spatial_input` says that input 0 is the (N, C, D1, ... Dn) that the window slides over.
    """
    auto_pad = node.get("auto_pad") or "NOTSET"
    kernel, strides, dilations = (tuple(node.get(key) or ()) for key in ("kernel_shape", "strides", "dilations"))
    pads = tuple(node.get("pads") or ()) if auto_pad == "NOTSET" else ()
    half = len(pads) // 2
    ranks = {n for n in (len(kernel), len(strides), len(dilations), len(pads) / 2) if n}
    rank = node.rank(0)
    if has_spatial_input and rank is not None:
        ranks.add(rank - 2)
    if len(ranks) > 1:
        raise node.refuse(
            "kernel_shape, strides, dilations, pads and the input disagree about the number of spatial axes"
        )
    if auto_pad not in AUTO:
        raise node.refuse(f"auto_pad {auto_pad!r} is unknown", f"one of {', '.join(AUTO)}")
    if min(*strides, *dilations, 1, 1) < 1:
        raise node.refuse("strides and dilations must be positive")
    return Window(
        rank=int(ranks.pop()) if ranks else None,
        kernel=kernel or None,
        strides=strides or (1,),
        dilations=dilations or (1,),
        pads=(pads[:half], pads[half:]) if pads else ((0,), (0,)),
        auto_pad=auto_pad,
    )


def spread(values: Sequence[int], rank: int) -> Sequence[int]:
    """One number for each of `rank` axes."""
    return values if len(values) == rank else tuple(values) * rank


def extents(window: Window, kernel: Sequence[int]) -> list[int]:
    """Elements from the first to the last tap of the dilated kernel, both counted, for each axis."""
    return [(k - 1) * d + 1 for k, d in zip(kernel, spread(window.dilations, len(kernel)), strict=True)]


def share(totals: Sequence[int], auto_pad: str, *, crops_both: bool = False) -> Pads:
    """Share the padding of each axis between both ends; an odd one goes to the end under SAME_UPPER, else to the start.

    A negative total crops the end alone or, by `crops_both`, both ends and an odd one at the end.
    """
    more = 0 if auto_pad == "SAME_UPPER" else 1
    begins = [(_larger(0, total) + more) // 2 - crops_both * (_larger(0, -total) // 2) for total in totals]
    return begins, [total - begin for total, begin in zip(totals, begins, strict=True)]


def fixed_pads(window: Window) -> Pads | None:
    """The pads where no size has a say in them (explicit, VALID, or SAME with strides of 1), else None."""
    if not window.is_same:
        return window.pads
    if window.kernel is None or max(window.strides) > 1:
        return None
    return share([extent - 1 for extent in extents(window, window.kernel)], window.auto_pad)


def resolve_pads(window: Window, sizes: Sequence[int], kernel: Sequence[int], *, crops_both: bool = False) -> Pads:
    """Pads for a tensor of spatial `sizes`, one number for each axis.

    SAME gives ceil(size / stride) windows. Where the stride leaves gaps between them, what is left over is cropped at
    the end, as convolutions have it, or by `crops_both` at both ends, as pools have it.
    """
    rank = len(sizes)
    if not window.is_same:
        return spread(window.pads[0], rank), spread(window.pads[1], rank)
    axes = zip(sizes, spread(window.strides, rank), extents(window, kernel), strict=True)
    totals = [(size - 1) // stride * stride + extent - size for size, stride, extent in axes]
    return share(totals, window.auto_pad, crops_both=crops_both)


def window_counts(window: Window, sizes: Sequence[int], pads: Pads, kernel: Sequence[int], *, ceil: bool) -> list[int]:
    """How many windows fit on each axis.

    `ceil` counts a last window that runs over the end too, unless it would start in the padding at the end.
    """
    counts = []
    strides = spread(window.strides, len(sizes))
    for size, begin, end, extent, stride in zip(sizes, *pads, extents(window, kernel), strides, strict=True):
        room = size + begin + end - extent
        count = -(-room // stride) if ceil else room // stride
        counts.append(_smaller(count, (size + begin - 1) // stride) + 1 if ceil else count + 1)
    return counts


def flat_pads(pads: Pads) -> list[int]:
    """Pads in the order of `torch.nn.functional.pad`: the last axis first, begin and end of each in turn."""
    return [n for pair in zip(reversed(pads[0]), reversed(pads[1]), strict=True) for n in pair]


def pad(x: torch.Tensor, amounts: Sequence[int], value: float = 0.0) -> torch.Tensor:
    """`torch.nn.functional.pad`, with `amounts` in its order. Raises SlimlineError TENSOR_TOO_LARGE."""
    sizes = list(x.shape)
    for axis in range(len(amounts) // 2):
        sizes[-1 - axis] += amounts[2 * axis] + amounts[2 * axis + 1]
    check_size(sizes, x.dtype)
    return F.pad(x, list(amounts), value=value)


def is_even(pads: Pads) -> bool:
    """Whether a torch kernel can pad by itself: as much at both ends, and nothing cropped."""
    return list(pads[0]) == list(pads[1]) and min(pads[0]) >= 0
