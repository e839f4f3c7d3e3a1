"""Means and norms of windows, and pools over the whole image. MaxPool is in `max_pooling.py`, boxes in `regions.py`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.pool_window import PoolWindow, read_pool
from worker.engine.torch_graph.kernels.windows import Pads, flat_pads, pad
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

AVERAGE: Mapping[int, Callable[..., torch.Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
GLOBAL_MAX: Mapping[int, Callable[..., torch.Tensor]] = {
    1: F.adaptive_max_pool1d,
    2: F.adaptive_max_pool2d,
    3: F.adaptive_max_pool3d,
}
HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
VOLUME = 3


@operator("AveragePool")
def average_pool(node: Node) -> Run:
    """The mean of each window. `count_include_pad` counts the pads too, but never what lies beyond them."""
    pool, counts_pads = read_pool(node), bool(node.get("count_include_pad", 0))
    if not counts_pads:
        pool.refuse_empty(node)
    padding = pool.native_padding()
    # torch has no mean of halves over volumes on the CPU.
    has_kernel = pool.rank in AVERAGE and not (pool.rank == VOLUME and node.input_type(0) in HALVES)
    if padding is not None and has_kernel and max(pool.dilations) == 1:
        options = {"padding": padding, "ceil_mode": pool.ceil, "count_include_pad": counts_pads}
        return partial(AVERAGE[pool.rank], **pool.options, **options)

    def run(x: torch.Tensor) -> torch.Tensor:
        pads, fill = pool.fill(x.shape[2:])
        windows = pool.view(pad(x, flat_pads(fill)))
        total = windows.sum(pool.taps, dtype=torch.promote_types(x.dtype, torch.float32))
        counts = _elements(pool, x, pads, total.shape[2:], counts_pads=counts_pads)
        return (total / counts).to(x.dtype)

    return run


def _elements(
    pool: PoolWindow, x: torch.Tensor, pads: Pads, counts: Sequence[int], *, counts_pads: bool
) -> torch.Tensor:
    """(o1, ... on): how many elements, or also pads, lie in each window of `x`, of which there are `counts`."""
    product = torch.ones([1] * pool.rank, dtype=torch.int64, device=x.device)
    for axis, (size, begin, end) in enumerate(zip(x.shape[2:], *pads, strict=True)):
        first, last = (0, begin + size + end) if counts_pads else (begin, begin + size)
        taps = torch.arange(pool.kernel[axis], device=x.device) * pool.dilations[axis]
        places = torch.arange(counts[axis], device=x.device)[:, None] * pool.strides[axis] + taps
        inside = ((places >= first) & (places < last)).sum(1)
        product = product * inside.view(-1, *[1] * (pool.rank - axis - 1))
    return product


@operator("LpPool")
def lp_pool(node: Node) -> Run:
    """The p-norm of each window; padding adds nothing to it."""
    pool, p = read_pool(node), node.get("p", 2)

    def run(x: torch.Tensor) -> torch.Tensor:
        _, fill = pool.fill(x.shape[2:])
        norm: torch.Tensor = torch.linalg.vector_norm(pool.view(pad(x, flat_pads(fill))), p, pool.taps)
        return norm

    return run


@operator("GlobalAveragePool")
def global_average_pool(_: Node) -> Run:
    """The mean of each channel, as torch.nn.AdaptiveAvgPool2d(1) computes it."""
    return _over_image(lambda x, axes: x.mean(axes, keepdim=True))


@operator("GlobalMaxPool")
def global_max_pool(_: Node) -> Run:
    """The largest element of each channel. The gradient goes to one of equals, as in torch.nn.AdaptiveMaxPool2d."""

    def run(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
        if len(axes) in GLOBAL_MAX:
            return GLOBAL_MAX[len(axes)](x, 1)
        largest: torch.Tensor = x.flatten(2).max(2).values
        return largest.view(*x.shape[:2], *[1] * len(axes))

    return _over_image(run)


@operator("GlobalLpPool")
def global_lp_pool(node: Node) -> Run:
    """The p-norm of each channel."""
    p = node.get("p", 2)
    return _over_image(lambda x, axes: torch.linalg.vector_norm(x, p, axes, keepdim=True), alone=torch.abs)


def _over_image(
    reduce: Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor],
    *,
    alone: Callable[[torch.Tensor], torch.Tensor] = torch.clone,
) -> Run:
    """`reduce` over all dimensions but batch and channels, `alone` where there are no others."""

    def run(x: torch.Tensor) -> torch.Tensor:
        axes = tuple(range(2, x.dim()))
        return reduce(x, axes) if axes else alone(x)

    return run
