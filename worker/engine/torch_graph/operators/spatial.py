"""Sampling an image at the points of a grid, and making such grids. Resizing is in `resize.py`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.kernels.interpolation import cubic_kernel, linear_kernel
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

MODES: Mapping[str, str] = {
    "bilinear": "linear",
    "linear": "linear",
    "nearest": "nearest",
    "bicubic": "cubic",
    "cubic": "cubic",
}
"""Names before opset 20, and since."""
PADDINGS = ("zeros", "border", "reflection")
NATIVE_MODES: Mapping[str, str] = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}
IMAGE, VOLUME = 4, 5
"""Ranks that F.grid_sample takes."""


@dataclass(frozen=True)
class Sampling:
    """The attributes of a GridSample."""

    mode: str
    padding: str
    align: bool
    """Whether -1 and 1 are the centres of the first and last element, and not their outer borders."""

    def has_kernel(self, rank: int) -> bool:
        """Whether F.grid_sample is the same: it reflects at half elements before it rounds to the nearest."""
        match self.mode:
            case "nearest":
                return rank in (IMAGE, VOLUME) and (self.padding != "reflection" or self.align)
            case "cubic":
                return rank == IMAGE
        return rank in (IMAGE, VOLUME)


@operator("GridSample")
def grid_sample(node: Node) -> Run:
    """`x` (N, C, D1, ... Dr) at points (N, E1, ... Er, r), each the last axis first and in -1 to 1."""
    mode, padding = node.get("mode", "linear"), node.get("padding_mode", "zeros")
    if mode not in MODES or padding not in PADDINGS:
        raise node.refuse(f"mode {mode!r} with padding_mode {padding!r} is unknown")
    how = Sampling(MODES[mode], padding, bool(node.get("align_corners", 0)))
    dtype = node.input_type(0)
    if how.mode != "nearest" and dtype is not None and not dtype.is_floating_point():
        raise node.refuse(f"mode {mode} between elements of {dtype.name.lower()}", "cast to float first")

    def run(x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point() or not how.has_kernel(x.dim()):
            return _sample(x, grid, how)
        wide = torch.promote_types(x.dtype, grid.dtype)
        y = F.grid_sample(x.to(wide), grid.to(wide), NATIVE_MODES[how.mode], how.padding, align_corners=how.align)
        return y.to(x.dtype)

    return on_bits(node, run) if how.mode == "nearest" else run


def _sample(x: torch.Tensor, grid: torch.Tensor, how: Sampling) -> torch.Tensor:
    """Any rank: each of the elements around a point is gathered from the flattened image and weighed."""
    sizes, out = x.shape[2:], grid.shape[1:-1]
    wide = torch.promote_types(x.dtype, torch.float32) if x.is_floating_point() else x.dtype
    flat, points = x.flatten(2).to(wide), grid.flatten(1, -2).unbind(-1)
    axes = [_around(point, size, how) for point, size in zip(reversed(points), sizes, strict=True)]
    y = flat.new_zeros(*x.shape[:2], math.prod(out))
    for corner in product(*axes):
        place, weight = torch.zeros_like(corner[0][0]), torch.ones_like(corner[0][1])
        for (element, share), size in zip(corner, sizes, strict=True):
            place, weight = place * size + element, weight * share
        y = y + flat.gather(2, place.unsqueeze(1).expand(-1, x.shape[1], -1)) * weight.unsqueeze(1).to(wide)
    return y.view(*x.shape[:2], *out).to(x.dtype)


def _around(point: torch.Tensor, size: int, how: Sampling) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(elements, weights) along one axis of `size`, for points in -1 to 1."""
    place = (point + 1) / 2 * (size - 1) if how.align else ((point + 1) * size - 1) / 2
    place = _padded(place.round() if how.mode == "nearest" else place, size, how)
    if how.mode == "nearest":
        return [_inside(place.long(), torch.ones_like(place), size, how)]
    left = place.floor()
    offsets, kernel = FILTERS[how.mode]
    return [_inside(left.long() + n, kernel(n - (place - left)), size, how) for n in offsets]


FILTERS: Mapping[str, tuple[Sequence[int], Callable[[torch.Tensor], torch.Tensor]]] = {
    "linear": (range(2), linear_kernel),
    "cubic": (range(-1, 3), cubic_kernel),
}
"""Elements that count, from the one at or before the point, and what they weigh."""


def _inside(element: torch.Tensor, weight: torch.Tensor, size: int, how: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """The element that stands for one that may lie outside, and its weight."""
    if how.padding == "zeros":
        weight = torch.where((element >= 0) & (element < size), weight, 0.0)
    elif how.padding == "reflection":
        element = _reflect(element.to(weight.dtype), size, how).long()
    return element.clamp(0, size - 1), weight


def _padded(place: torch.Tensor, size: int, how: Sampling) -> torch.Tensor:
    """Coordinates beyond the borders as `padding_mode` has them."""
    if how.padding == "zeros":
        return place
    if how.padding == "reflection":
        return _reflect(place, size, how)
    low, high = _borders(size, how)
    return torch.where((place < low) | (place > high), place.clamp(0, size - 1), place)


def _reflect(place: torch.Tensor, size: int, how: Sampling) -> torch.Tensor:
    """Mirrored at the borders until within."""
    low, high = _borders(size, how)
    if low == high:
        return torch.zeros_like(place)
    span = high - low
    beyond = (place - low).abs() % (2 * span)
    return torch.where(beyond > span, 2 * span - beyond, beyond) + low


def _borders(size: int, how: Sampling) -> tuple[float, float]:
    return (0.0, size - 1.0) if how.align else (-0.5, size - 0.5)


@operator("AffineGrid", host=(1,))
def affine_grid(node: Node) -> Run:
    """The points that the affine maps theta (N, 2, 3) or (N, 3, 4) send an image of a given size to."""
    align = bool(node.get("align_corners", 0))

    def run(theta: torch.Tensor, size: list[int]) -> torch.Tensor:
        check_size([size[0], *size[2:], len(size) - 2], theta.dtype)
        return F.affine_grid(theta, size, align_corners=align)

    return run
