"""Resize and Upsample. How an axis maps to the original one is in `kernels/interpolation.py`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.kernels.interpolation import (
    COORDINATES,
    NEAREST,
    Axis,
    Filter,
    cubic_kernel,
    linear_kernel,
    weigh,
)
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

CROP = "tf_crop_and_resize"
MODES = ("nearest", "linear", "cubic")
POLICIES: Mapping[str, Callable[[Sequence[float]], float]] = {"not_larger": min, "not_smaller": max}
NATIVE_MODES: Mapping[tuple[str, int], str] = {
    ("linear", 3): "linear",
    ("linear", 4): "bilinear",
    ("linear", 5): "trilinear",
    ("cubic", 4): "bicubic",
}
"""F.interpolate's mode, by ours and the rank."""
NATIVE_CUBIC = -0.75
REPEATS = frozenset({(mode, "round_prefer_floor") for mode in ("half_pixel", "pytorch_half_pixel")}) | {
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
    ("asymmetric", "floor"),
}
"""(coordinates, rounding) that repeat each element n times where the scale is the whole number n."""
NATIVE_FACTORS = frozenset({1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 32})
"""Whole scales whose inverse float32 does not round down, so that F.interpolate finds the right element."""
COORDINATES_SINCE = 11
"""The Resize with a `coordinate_transformation_mode`. Before, it was asymmetric, and ceil where it shrinks."""


@dataclass(frozen=True)
class Method:
    """The attributes of a node, as all its axes share them."""

    mode: str
    coordinates: str
    nearest: str = "floor"
    filter: Filter = field(default=Filter(linear_kernel, 1))
    outside: float = 0.0
    """The value of elements whose coordinates leave the original, where it is cropped."""
    is_native: bool = False
    """Whether F.interpolate computes the same as `filter` where the length is exact."""


@operator("Resize", host=(1, 2, 3))
def resize(node: Node) -> Run:
    """Interpolation along each axis in turn, by `scales` or to `sizes`. Whole numbers are rounded half to even."""
    method = _method(node)
    if node.version < COORDINATES_SINCE:
        return _upsample(node, method)
    policy, axes = node.get("keep_aspect_ratio_policy", "stretch"), node.get("axes")
    if policy not in ("stretch", *POLICIES):
        raise node.refuse(f"keep_aspect_ratio_policy {policy!r} is unknown")

    def run(
        x: torch.Tensor,
        roi: list[float] | None = None,
        scales: list[float] | None = None,
        sizes: list[int] | None = None,
    ) -> torch.Tensor:
        if bool(scales) == bool(sizes):
            raise node.refuse("needs either scales or sizes")
        dimensions = range(x.dim()) if axes is None else [axis % x.dim() for axis in axes]
        old = [x.shape[dimension] for dimension in dimensions]
        resized = _by_scales(old, scales) if scales else _by_sizes(old, sizes or [], policy)
        if method.coordinates == CROP:
            if not roi:
                raise node.refuse(f"{CROP} needs the input roi")
            resized = [
                Axis(axis.size, axis.length, axis.scale, start, end)
                for axis, start, end in zip(resized, roi[: len(old)], roi[len(old) :], strict=True)
            ]
        changed = {d: axis for d, axis in zip(dimensions, resized, strict=True) if not _is_same(axis)}
        return _resize(x, changed, method) if changed else x

    return run


@operator("Upsample", host=(1,))
def upsample(node: Node) -> Run:
    """Resize before opset 10: asymmetric coordinates, the element at or before them."""
    return _upsample(node, _method(node))


def _upsample(node: Node, method: Method) -> Run:
    fixed = node.get("scales")

    def run(x: torch.Tensor, scales: list[float] | None = None) -> torch.Tensor:
        axes = _by_scales(x.shape, fixed or scales or [])
        changed = {dimension: axis for dimension, axis in enumerate(axes) if not _is_same(axis)}
        return _resize(x, changed, method) if changed else x

    return run


def _method(node: Node) -> Method:
    mode, exclude = node.get("mode", "nearest"), bool(node.get("exclude_outside", 0))
    mode = "linear" if mode == "bilinear" else mode
    antialias, dtype = bool(node.get("antialias", 0)), node.input_type(0)
    if mode not in MODES:
        raise node.refuse(f"mode {mode!r} is unknown", f"one of {', '.join(MODES)}")
    if mode == "nearest" and (exclude or antialias):
        raise node.refuse("exclude_outside and antialias have no meaning in mode nearest", "leave them out")
    if mode != "nearest" and dtype in (ir.DataType.BOOL, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        raise node.refuse(f"mode {mode} between {dtype}", "cast to a real type first")
    if node.op == "Upsample" or node.version < COORDINATES_SINCE:
        return Method(mode, "asymmetric", "floor" if node.op == "Upsample" else "floor or ceil")
    coordinates, nearest = (
        node.get("coordinate_transformation_mode", "half_pixel"),
        node.get("nearest_mode", "round_prefer_floor"),
    )
    if coordinates not in COORDINATES or nearest not in NEAREST:
        raise node.refuse(f"coordinate_transformation_mode {coordinates!r} with nearest_mode {nearest!r} is unknown")
    a = node.get("cubic_coeff_a", NATIVE_CUBIC)
    kernel, half_width = (partial(cubic_kernel, a=a), 2) if mode == "cubic" else (linear_kernel, 1)
    is_native = coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners") and not (antialias or exclude)
    return Method(
        mode,
        coordinates,
        nearest,
        Filter(kernel, half_width, antialias, exclude),
        node.get("extrapolation_value", 0.0),
        is_native and (mode == "linear" or a == NATIVE_CUBIC),
    )


def _by_scales(old: Sequence[int], scales: Sequence[float]) -> list[Axis]:
    return [
        Axis(n, n * int(scale) if scale.is_integer() else math.floor(n * scale), scale)
        for n, scale in zip(old, scales, strict=True)
    ]


def _by_sizes(old: Sequence[int], sizes: Sequence[int], policy: str) -> list[Axis]:
    if policy == "stretch":
        return [Axis(n, size, 1.0 if n == size else size / n) for n, size in zip(old, sizes, strict=True)]
    scale = POLICIES[policy]([size / n for n, size in zip(old, sizes, strict=True)])
    return [Axis(n, math.floor(scale * n + 0.5), scale) for n in old]


def _is_same(axis: Axis) -> bool:
    return axis.scale == 1 and axis.start == 0 and axis.end == 1


def _resize(x: torch.Tensor, axes: Mapping[int, Axis], method: Method) -> torch.Tensor:
    shape = [axes[dimension].length if dimension in axes else size for dimension, size in enumerate(x.shape)]
    check_size(shape, x.dtype)
    if method.mode == "nearest":
        return _nearest(x, axes, method)
    mode = NATIVE_MODES.get((method.mode, x.dim()))
    if mode and method.is_native and x.is_floating_point() and min(axes) > 1 and _is_exact(axes, method):
        return F.interpolate(x, shape[2:], mode=mode, align_corners=method.coordinates == "align_corners")
    y = x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x.double()
    for dimension, axis in axes.items():
        y = _along(y, dimension, axis, method)
    if x.is_floating_point():
        return y.to(x.dtype)
    limits = torch.iinfo(x.dtype)
    return y.round().clamp(limits.min, limits.max).to(x.dtype)


def _is_exact(axes: Mapping[int, Axis], method: Method) -> bool:
    """Whether the scale is length / size, which F.interpolate takes it for."""
    if method.coordinates == "pytorch_half_pixel" and any(axis.length == 1 for axis in axes.values()):
        return False
    return all(axis.scale.is_integer() or axis.exact_length == axis.length for axis in axes.values())


def _nearest(x: torch.Tensor, axes: Mapping[int, Axis], method: Method) -> torch.Tensor:
    scales = [axes[dimension].scale if dimension in axes else 1.0 for dimension in range(x.dim())]
    repeats = (method.coordinates, method.nearest) in REPEATS and all(scale.is_integer() for scale in scales)
    native = repeats and x.is_floating_point() and min(axes) > 1 and 3 <= x.dim() <= 5  # noqa: PLR2004 - as NATIVE_MODES
    if native and all(int(scale) in NATIVE_FACTORS for scale in scales):
        return F.interpolate(x, [int(n * scale) for n, scale in zip(x.shape[2:], scales[2:], strict=True)])
    for dimension, axis in axes.items():
        x = x.repeat_interleave(int(axis.scale), dimension) if repeats else _along(x, dimension, axis, method)
    return x


def _along(x: torch.Tensor, dimension: int, axis: Axis, method: Method) -> torch.Tensor:
    """`x` resized along one dimension."""
    place = torch.arange(axis.length, dtype=torch.float64, device=x.device)
    coordinates = COORDINATES[method.coordinates](axis, place)
    shape = [-1, *[1] * (x.dim() - dimension - 1)]
    if method.mode == "nearest":
        rounding = method.nearest if method.nearest in NEAREST else "floor" if axis.scale >= 1 else "ceil"
        y = x.index_select(dimension, NEAREST[rounding](coordinates).long().clamp(0, axis.size - 1))
    else:
        elements, weights = weigh(axis, coordinates, method.filter)
        weighted = weights.to(x.dtype).view(len(weights), *shape)
        y = x.index_select(dimension, elements[0]) * weighted[0]
        for element, weight in zip(elements[1:], weighted[1:], strict=True):
            y = y.addcmul(x.index_select(dimension, element), weight)
    if method.coordinates != CROP:
        return y
    is_outside = (coordinates < 0) | (coordinates > axis.size - 1)
    return y.masked_fill(is_outside.view(shape), _in_range(method.outside, y.dtype))


def _in_range(number: float, dtype: torch.dtype) -> float:
    """The number of type `dtype` next to `number`."""
    if dtype.is_floating_point:
        return number
    if dtype is torch.bool:
        return bool(number)
    limits = torch.iinfo(dtype)
    return min(max(round(number), limits.min), limits.max)
