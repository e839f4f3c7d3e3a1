"""How a resized axis maps to the original one: coordinates, and the elements and weights around them. No operator.

Each function works on one axis; coordinates are in elements of the original axis, in float64.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Axis:
    """An axis of `size` elements resized to `length`."""

    size: int
    length: int
    scale: float
    """length / size, or the scale that `length` was rounded from."""
    start: float = 0.0
    end: float = 1.0
    """The part of the axis that is resized, where it is cropped."""

    @property
    def exact_length(self) -> float:
        """The length before it was rounded."""
        return self.size * self.scale


def _half_pixel(axis: Axis, place: torch.Tensor) -> torch.Tensor:
    return (place + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(axis: Axis, place: torch.Tensor) -> torch.Tensor:
    return axis.size / 2 * (1 - axis.length / axis.exact_length) + _half_pixel(axis, place)


def _pytorch_half_pixel(axis: Axis, place: torch.Tensor) -> torch.Tensor:
    return place * 0 if axis.length == 1 else _half_pixel(axis, place)


def _align_corners(axis: Axis, place: torch.Tensor) -> torch.Tensor:
    return place * 0 if axis.exact_length == 1 else place * (axis.size - 1) / (axis.exact_length - 1)


def _tf_crop_and_resize(axis: Axis, place: torch.Tensor) -> torch.Tensor:
    last = axis.size - 1
    if axis.exact_length == 1:
        return place * 0 + (axis.start + axis.end) * last / 2
    return place * (axis.end - axis.start) * last / (axis.exact_length - 1) + axis.start * last


COORDINATES: Mapping[str, Callable[[Axis, torch.Tensor], torch.Tensor]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": lambda axis, place: place / axis.scale,
    "tf_half_pixel_for_nn": lambda axis, place: (place + 0.5) / axis.scale,
    "tf_crop_and_resize": _tf_crop_and_resize,
}
"""ONNX's `coordinate_transformation_mode`: where an element of the resized axis lies on the original."""

NEAREST: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "round_prefer_floor": lambda place: torch.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: torch.floor(place + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}
"""ONNX's `nearest_mode`."""


def linear_kernel(distance: torch.Tensor) -> torch.Tensor:
    """Weight of an element at a signed distance: a triangle of half-width 1."""
    return (1 - distance.abs()).clamp(min=0)


def cubic_kernel(distance: torch.Tensor, a: float = -0.75) -> torch.Tensor:
    """Weight of an element at a signed distance: cubic convolution of half-width 2 (Keys 1981, equation 4)."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))  # noqa: PLR2004 - the half-width


@dataclass(frozen=True)
class Filter:
    """Which elements count, and how much."""

    kernel: Callable[[torch.Tensor], torch.Tensor]
    half_width: int
    antialias: bool = False
    """Whether the kernel grows with the step between the elements sampled (`scale` < 1)."""
    exclude_outside: bool = False
    """Whether elements beyond the ends count nothing, and not as the last one."""


def weigh(axis: Axis, coordinates: torch.Tensor, how: Filter) -> tuple[torch.Tensor, torch.Tensor]:
    """(elements, weights), each (taps, length): the value at a coordinate is the weighted sum of its elements."""
    stretch = min(axis.scale, 1.0) if how.antialias else 1.0
    first = math.floor(-how.half_width / stretch) + 1
    offsets = torch.arange(first, 2 - first, device=coordinates.device)[:, None]
    left = coordinates.floor()
    weights = how.kernel((offsets - (coordinates - left)) * stretch)
    elements = left.long() + offsets
    if how.antialias:
        weights = weights / weights.sum(0)
    if how.exclude_outside:
        weights = torch.where((elements >= 0) & (elements < axis.size), weights, 0.0)
        total = weights.sum(0)
        weights = weights / torch.where(total == 0, 1.0, total)
    return elements.clamp(0, axis.size - 1), weights
