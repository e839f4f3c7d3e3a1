"""Deformable convolution. Plain ones are in `convolution.py`, sampling by a grid alone is in `spatial.py`.

Legend: N batch, C channels, M output channels, G offset groups, K taps of the kernel, L output positions, D axes.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.windows import Window, read_window, spread
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

MOST_AXES = 3
"""Spatial axes F.grid_sample knows."""


@operator("DeformConv")
def deform_conv(node: Node) -> Run:
    """Convolution whose taps are moved by `offset` and weighed by `mask` (Dai et al. 2017, Zhu et al. 2019).

    A tap between elements is interpolated linearly; outside of the input all is nought. Every tap is gathered by
    grid_sample, which has gradients for input and offsets; the rest is one matrix product.
    """
    window, group, offset_group = read_window(node), node.get("group", 1), node.get("offset_group", 1)
    if window.rank is not None and window.rank > MOST_AXES:
        raise node.refuse(f"{window.rank} spatial axes", f"up to {MOST_AXES} are run")

    def run(
        x: torch.Tensor,
        weight: torch.Tensor,
        offset: torch.Tensor,
        bias: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        batch, out = x.shape[0], offset.shape[2:]
        taps, axes = math.prod(weight.shape[2:]), len(out)
        moved = offset.reshape(batch * offset_group, taps, axes, *out)
        sampled = _sample(x, moved + _lattice(window, weight.shape[2:], offset), offset_group)
        if mask is not None:
            sampled = sampled * mask.reshape(batch * offset_group, 1, taps, math.prod(out))
        columns = sampled.reshape(batch, group, weight.shape[1] * taps, math.prod(out))
        kernels = weight.reshape(group, weight.shape[0] // group, weight.shape[1] * taps)
        y = (kernels @ columns).reshape(batch, weight.shape[0], *out)
        return y if bias is None else y + bias.view(-1, *[1] * axes)

    return run


def _lattice(window: Window, kernel: Sequence[int], offset: torch.Tensor) -> torch.Tensor:
    """(K, D, *L): the element each tap would read at each position were it not moved."""
    axes, out = len(kernel), offset.shape[2:]
    strides, dilations = spread(window.strides, axes), spread(window.dilations, axes)
    begins = spread(window.pads[0], axes)
    lattice = []
    for axis in range(axes):
        taps = torch.arange(kernel[axis], device=offset.device) * dilations[axis] - begins[axis]
        starts = torch.arange(out[axis], device=offset.device) * strides[axis]
        taps = taps.view(-1, *[1] * (axes - axis - 1)).expand(*kernel).reshape(-1, *[1] * axes)
        starts = starts.view(-1, *[1] * (axes - axis - 1))
        lattice.append((taps + starts).expand(-1, *out))
    return torch.stack(lattice, dim=1).to(offset.dtype)


def _sample(x: torch.Tensor, places: torch.Tensor, offset_group: int) -> torch.Tensor:
    """(N G, C / G, K, L): `x` at `places` (N G, K, D, *L), in elements along each axis."""
    sizes = x.shape[2:]
    x = x.reshape(x.shape[0] * offset_group, x.shape[1] // offset_group, *sizes)
    # grid_sample wants the last axis first, and -1 and 1 at the outer borders of the first and last element.
    grid = [(2 * place + 1) / size - 1 for place, size in zip(places.unbind(2), sizes, strict=True)]
    if len(sizes) == 1:
        x, grid = x.unsqueeze(2), [torch.zeros_like(grid[0]), *grid]
    points = torch.stack([axis.flatten(2) for axis in reversed(grid)], dim=-1)
    lead = [1] * (x.dim() - 4)
    y = F.grid_sample(x, points.view(x.shape[0], *lead, *points.shape[1:]), padding_mode="zeros", align_corners=False)
    return y.reshape(x.shape[0], x.shape[1], *points.shape[1:3])
