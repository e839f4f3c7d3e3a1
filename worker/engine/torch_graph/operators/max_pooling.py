"""MaxPool, and MaxUnpool that undoes it. Other pools are in `pooling.py`, windows in `kernels/pool_window.py`."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.kernels.pool_window import PoolWindow, read_pool
from worker.engine.torch_graph.kernels.windows import flat_pads, pad, spread
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

KERNELS: Mapping[int, Callable[..., torch.Tensor]] = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
KERNELS_WITH_PLACES: Mapping[int, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}
BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


@operator("MaxPool")
def max_pool(node: Node) -> Run:
    """The largest element of each window and, as second output, its place in the flattened input."""
    pool = read_pool(node)
    if pool.rank not in KERNELS:
        raise node.refuse(f"{pool.rank} spatial axes", f"torch has kernels for {', '.join(map(str, KERNELS))}")
    pool.refuse_empty(node)
    run = _with_places(pool, is_column_major=node.get("storage_order", 0) == 1) if node.wants(1) else _alone(pool)
    return _through_float(run) if node.input_type(0) in BYTES else run


def _through_float(run: Run) -> Run:
    """Bytes are exact in float32, and accelerators have no pools of whole numbers."""

    def run_on_float(x: torch.Tensor) -> Any:
        y = run(x.float())
        return (y[0].to(x.dtype), y[1]) if isinstance(y, tuple) else y.to(x.dtype)

    return run_on_float


def _alone(pool: PoolWindow) -> Run:
    kernel, padding = partial(KERNELS[pool.rank], dilation=pool.dilations, **pool.options), pool.native_padding()
    if padding is not None:
        return partial(kernel, padding=padding, ceil_mode=pool.ceil)

    def run(x: torch.Tensor) -> torch.Tensor:
        _, fill = pool.fill(x.shape[2:])
        return kernel(pad(x, flat_pads(fill), value=-math.inf))

    return run


def _with_places(pool: PoolWindow, *, is_column_major: bool) -> Run:
    kernel = partial(KERNELS_WITH_PLACES[pool.rank], dilation=pool.dilations, **pool.options)
    padding = pool.native_padding()

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = x.shape[2:]
        if padding is not None:
            y, place = kernel(x, padding=padding, ceil_mode=pool.ceil)
            begins: Sequence[int] = [0] * pool.rank
        else:
            _, fill = pool.fill(sizes)
            x, begins = pad(x, flat_pads(fill), value=-math.inf), fill[0]
            y, place = kernel(x)
        spots = _unravel(place, x.shape[2:], begins)
        steps = [math.prod(sizes[:i] if is_column_major else sizes[i + 1 :]) for i in range(pool.rank)]
        plane = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(*x.shape[:2], *[1] * pool.rank)
        return y, sum((spot * step for spot, step in zip(spots, steps, strict=True)), plane * math.prod(sizes))

    return run


def _unravel(place: torch.Tensor, sizes: Sequence[int], begins: Sequence[int]) -> list[torch.Tensor]:
    """For each axis, where `place` in a flattened image of `sizes` lies behind the padding at its start."""
    spots = []
    for size, begin in zip(reversed(sizes), reversed(begins), strict=True):
        spots.append(place % size - begin)
        place = place // size
    return spots[::-1]


@operator("MaxUnpool", host=(2,))
def max_unpool(node: Node) -> Run:
    """Puts elements back where MaxPool found them, by its second output, and nought elsewhere.

    Places count in the image that `kernel_shape`, `strides` and `pads` give; an `output_shape` lengthens that one.
    """
    pool = read_pool(node)
    margins = [begin + end for begin, end in zip(*(spread(ends, pool.rank) for ends in pool.window.pads), strict=True)]

    def run(x: torch.Tensor, places: torch.Tensor, target: list[int] | None = None) -> torch.Tensor:
        axes = zip(x.shape[2:], pool.strides, margins, pool.kernel, strict=True)
        shape = [*x.shape[:2], *((size - 1) * stride - margin + n for size, stride, margin, n in axes)]
        check_size(shape, x.dtype)
        y = x.new_zeros(math.prod(shape)).scatter(0, places.flatten(), x.flatten()).view(shape)
        if target is None:
            return y
        longer = [size - n for size, n in zip(target[2:], shape[2:], strict=True)]
        if min(longer) < 0:
            raise node.refuse(f"output_shape {target} is smaller than the image it comes from, {shape}")
        return pad(y, flat_pads(([0] * len(longer), longer)))

    return run
