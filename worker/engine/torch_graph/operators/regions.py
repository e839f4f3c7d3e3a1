"""Pools over boxes, as detectors use them. Pools over windows and images are in `pooling.py`.

Legend: R boxes, H W the feature map, P Q bins along the axes of a box, S T points along the axes of a bin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

HALF_PIXEL_SINCE = 16
"""The RoiAlign with a `coordinate_transformation_mode`; the one before does not shift by half an element."""


@dataclass(frozen=True)
class Points:
    """Where boxes sample one axis of the map, between which two elements."""

    elements: torch.Tensor
    """(R, P, S, 2)."""
    weights: torch.Tensor
    """(R, P, S, 2): all nought where a point lies beyond the map."""
    exist: torch.Tensor
    """(R, S): boxes may have fewer points than the one with most."""
    counts: torch.Tensor
    """(R): points in a bin, at least 1."""


@operator("RoiAlign", fixed=(2,))
def roi_align(node: Node) -> Run:
    """Mean or maximum over evenly spread points in each bin of each box (He et al. 2017).

    The maximum is over the weighted corners of all points, as the operator's tests have it. With `sampling_ratio` 0
    the boxes tell the number of points, so that two numbers are read from the device.
    """
    default = "output_half_pixel" if node.version < HALF_PIXEL_SINCE else "half_pixel"
    mode, transform = node.get("mode", "avg").lower(), node.get("coordinate_transformation_mode", default).lower()
    if mode not in ("avg", "max") or transform not in ("half_pixel", "output_half_pixel"):
        raise node.refuse(f"mode {mode!r} with coordinate_transformation_mode {transform!r} is unknown")
    scale, ratio, shift = node.get("spatial_scale", 1.0), node.get("sampling_ratio", 0), transform == "half_pixel"
    bins, pool = (node.get("output_height", 1), node.get("output_width", 1)), _mean if mode == "avg" else _largest

    def run(x: torch.Tensor, boxes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        x1, y1, x2, y2 = (boxes.to(wide) * scale - 0.5 * shift).unbind(1)
        ends = [(y1, y2 - y1), (x1, x2 - x1)]
        axes = [
            _spread(start, size if shift else size.clamp(min=1.0), bins[axis], x.shape[2 + axis], ratio)
            for axis, (start, size) in enumerate(ends)
        ]
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).to(wide)
        y = pool(rows, _flat_elements(axes, images, x.shape[2:]), axes)
        return y.view(-1, *bins, x.shape[1]).permute(0, 3, 1, 2).to(x.dtype)

    return run


def _spread(start: torch.Tensor, size: torch.Tensor, bins: int, length: int, ratio: int) -> Points:
    """Points of boxes from `start` (R) of `size` (R) along an axis of `length`."""
    width = size / bins
    counts = torch.full_like(width, ratio) if ratio > 0 else width.ceil()
    most = ratio if ratio > 0 else _most(counts)
    point, bin_ = torch.arange(most, device=size.device), torch.arange(bins, device=size.device)
    exist, counts = point < counts[:, None], counts.clamp(min=1)
    step = (width / counts)[:, None, None]
    place = start[:, None, None] + bin_[:, None] * width[:, None, None] + (point + 0.5) * step
    is_inside = (place >= -1) & (place <= length) & exist[:, None]
    left = place.clamp(min=0).floor().clamp(max=length - 1)
    share = torch.where(left >= length - 1, 0.0, place.clamp(min=0) - left)
    weights = torch.stack([1 - share, share], dim=-1) * is_inside.unsqueeze(-1)
    elements = torch.stack([left, (left + 1).clamp(max=length - 1)], dim=-1).long()
    return Points(elements, weights, exist, counts)


def _most(counts: torch.Tensor) -> int:
    """The largest of `counts`, at least 1: waits for the device."""
    if len(counts) == 0:
        return 1
    most: int = counts.long().clamp(min=1).max().item()  # type: ignore[assignment]  # whole numbers stay such
    # A traced graph cannot see that there are any points.
    torch._check(most >= 1)  # type: ignore[no-untyped-call]  # noqa: SLF001 - torch documents it for this use
    return most


def _flat_elements(axes: Sequence[Points], images: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """(R, P, Q, S, T, 2, 2): the corners of every point in the flattened maps of all images."""
    height, width = sizes
    rows = images.long()[:, None, None, None] * height + axes[0].elements
    return rows[:, :, None, :, None, :, None] * width + axes[1].elements[:, None, :, None, :, None, :]


def _weights(axes: Sequence[Points]) -> torch.Tensor:
    """(R, P, Q, S, T, 2, 2)."""
    return axes[0].weights[:, :, None, :, None, :, None] * axes[1].weights[:, None, :, None, :, None, :]


def _mean(rows: torch.Tensor, elements: torch.Tensor, axes: Sequence[Points]) -> torch.Tensor:
    counts = (axes[0].counts * axes[1].counts).view(-1, *[1] * 6)
    weights = (_weights(axes) / counts).flatten(3).flatten(0, 2)
    return F.embedding_bag(elements.flatten(3).flatten(0, 2), rows, mode="sum", per_sample_weights=weights)


def _largest(rows: torch.Tensor, elements: torch.Tensor, axes: Sequence[Points]) -> torch.Tensor:
    corners = rows[elements] * _weights(axes).unsqueeze(-1)
    exist = (axes[0].exist[:, :, None] & axes[1].exist[:, None])[:, None, None, :, :, None, None, None]
    corners = corners.masked_fill(~exist, -math.inf).flatten(3, -2)
    largest = corners.amax(3)
    return largest.masked_fill(largest == -math.inf, 0.0)


@operator("MaxRoiPool")
def max_roi_pool(node: Node) -> Run:
    """The largest element in each bin of each box (image, x1, y1, x2, y2), nought in empty ones (Girshick 2015).

    Each box gets a copy of its map to mask: memory grows with boxes times the map.
    """
    bins, scale = node.need("pooled_shape"), node.get("spatial_scale", 1.0)

    def run(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        scaled = boxes[:, 1:].to(torch.promote_types(boxes.dtype, torch.float32)) * scale
        x1, y1, x2, y2 = torch.where(scaled < 0, (scaled - 0.5).ceil(), (scaled + 0.5).floor()).unbind(1)
        in_row, in_column = _cover(y1, y2, bins[0], x.shape[2]), _cover(x1, x2, bins[1], x.shape[3])
        y = x[boxes[:, 0].long()]
        y = torch.stack([_masked_max(y, inside[:, None, None, :], 3) for inside in in_column.unbind(1)], dim=3)
        y = torch.stack([_masked_max(y, inside[:, None, :, None], 2) for inside in in_row.unbind(1)], dim=2)
        is_empty = ~(in_row.any(2)[:, :, None] & in_column.any(2)[:, None, :])
        return y.masked_fill(is_empty[:, None], 0.0)

    return run


def _cover(first: torch.Tensor, last: torch.Tensor, bins: int, length: int) -> torch.Tensor:
    """(R, P, length): which elements each bin covers, where a box has whole elements from `first` to `last`."""
    width = ((last - first + 1).clamp(min=1) / bins)[:, None]
    bin_ = torch.arange(bins, device=first.device)
    start, end = (bin_ * width).floor() + first[:, None], ((bin_ + 1) * width).ceil() + first[:, None]
    element = torch.arange(length, device=first.device)
    return (element >= start[..., None]) & (element < end[..., None])


def _masked_max(x: torch.Tensor, mask: torch.Tensor, dimension: int) -> torch.Tensor:
    return x.masked_fill(~mask, -math.inf).amax(dimension)
