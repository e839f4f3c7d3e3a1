"""Col2Im: blocks of an image, one in each column, summed back into the image. Convolutions are in `convolution.py`."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.kernels.windows import Window, extents, read_window, resolve_pads, spread
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator


@operator("Col2Im", host=(1, 2))
def col2im(node: Node) -> Run:
    """Sums blocks (N, C * taps, L) where they overlap in the padded image, then crops the pads."""
    window = read_window(node, has_spatial_input=False)

    def run(x: torch.Tensor, sizes: list[int], block: list[int]) -> torch.Tensor:
        begins, ends = resolve_pads(window, sizes, block)
        padded = [size + begin + end for size, begin, end in zip(sizes, begins, ends, strict=True)]
        check_size([*x.shape[:2], *padded], x.dtype)
        sum_blocks = _fold if len(sizes) == 2 and x.is_floating_point() else _add_at  # noqa: PLR2004 - images
        y = sum_blocks(x, padded, block, window)
        for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True), start=2):
            y = y.narrow(axis, begin, size)
        return y

    return on_bits(node, run)


def _fold(x: torch.Tensor, padded: Sequence[int], block: Sequence[int], window: Window) -> torch.Tensor:
    dilation, stride = spread(window.dilations, len(block)), spread(window.strides, len(block))
    return F.fold(x, tuple(padded), tuple(block), dilation=tuple(dilation), stride=tuple(stride))


def _add_at(x: torch.Tensor, padded: Sequence[int], block: Sequence[int], window: Window) -> torch.Tensor:
    """Any number of axes and any type: each element is added at its place in the flattened image."""
    places, step = _places(padded, block, window, x.device), math.prod(padded)
    channels = x.shape[1] // math.prod(block)
    elements = x.reshape(x.shape[0], channels, places.numel())
    flat = x.new_zeros(x.shape[0], channels, step)
    y = flat.index_add(2, places.flatten(), elements)
    return y.view(*x.shape[:1], channels, *padded)


def _places(padded: Sequence[int], block: Sequence[int], window: Window, device: torch.device) -> torch.Tensor:
    """(k1, ... kn, L1, ... Ln): where tap k of block L lies in the flattened image."""
    rank = len(block)
    places, step = torch.zeros([1] * 2 * rank, dtype=torch.int64, device=device), 1
    dilations, strides = spread(window.dilations, rank), spread(window.strides, rank)
    for axis in reversed(range(rank)):
        count = (padded[axis] - extents(window, block)[axis]) // strides[axis] + 1
        taps = torch.arange(block[axis], device=device) * dilations[axis]
        place = taps[:, None] + torch.arange(count, device=device) * strides[axis]
        shape = [1] * 2 * rank
        shape[axis], shape[rank + axis] = place.shape
        places, step = places + place.view(shape) * step, step * padded[axis]
    return places
