"""Fake quantization: QuantizeLinear and DequantizeLinear in one, with gradients. The operators apart cut them."""

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.affine_quantization import align, bounds, collect, divide, widen
from worker.engine.torch_graph.kernels.rounding import MINIFLOATS, to_type

__all__ = [
    "FakeQuantize",
    "FakeQuantizeFloat",
    "bounds",
    "fake_quantize",
    "fake_quantize_float",
    "round_straight_through",
]

Limit = float | torch.Tensor


def fake_quantize(  # noqa: PLR0913 - the inputs and attributes of the two nodes it stands for
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    *,
    axis: int,
    block_size: int,
    low: int,
    high: int,
) -> torch.Tensor:
    """What the two nodes give one after the other, bit for bit, in the type of `scale`; shapes as theirs.

    `low` and `high` are the `bounds` of the quantized type; `block_size` is 0 where there are no blocks.
    """
    result: torch.Tensor = FakeQuantize.apply(x, scale, zero_point, (axis, block_size), (low, high))  # type: ignore[no-untyped-call]  # torch leaves it so
    return result


def fake_quantize_float(
    x: torch.Tensor, scale: torch.Tensor, *, axis: int, block_size: int, dtype: ir.DataType, saturate: bool
) -> torch.Tensor:
    """The same for a `dtype` of float 8 or float 4, whose zero points are left out or zero."""
    result: torch.Tensor = FakeQuantizeFloat.apply(x, scale, (axis, block_size), (dtype, saturate))  # type: ignore[no-untyped-call]  # torch leaves it so
    return result


def round_straight_through(x: torch.Tensor) -> torch.Tensor:
    """`x` rounded, halves to even, with the gradient of `x` itself."""
    result: torch.Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]  # torch leaves it so
    return result


class FakeQuantize(torch.autograd.Function):
    """Straight-through to x, learned step size (LSQ, Esser et al. 2020) to the scale.

    With v = x / scale and the bounds less the zero point: dx is 1 where v is within them, else 0; dscale is
    round(v) - v within, the bound outside, summed to the scale's shape. It is the gradient of
    `scale * round(clamp(v))` where `round` lets it pass. Backward recomputes v: only the inputs are kept.
    """

    @staticmethod
    def forward(
        x: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor | None,
        placing: tuple[int, int],
        limits: tuple[int, int],
    ) -> torch.Tensor:
        """`placing` is axis and block size, `limits` the lowest and highest code."""
        step = align(scale, x, *placing)
        codes = widen(divide(x, step)).round_()
        codes = _clip_(codes, *_reach(zero_point, x, placing, limits))
        # A code knows no minus zero: the sum turns it into zero.
        return codes.add_(0.0).mul_(step.to(codes.dtype)).to(scale.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG004, D102 - torch's
        x, scale, zero_point, ctx.placing, ctx.limits = inputs
        ctx.save_for_backward(x, scale, zero_point)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: D102 - torch's
        x, _, zero_point = ctx.saved_tensors
        reach = _reach(zero_point, x, ctx.placing, ctx.limits)
        return *_learned_step(ctx, gradients[0], reach, torch.round), None, None, None


class FakeQuantizeFloat(torch.autograd.Function):
    """The same gradients for floating types, whose rounding has no one step."""

    @staticmethod
    def forward(
        x: torch.Tensor, scale: torch.Tensor, placing: tuple[int, int], target: tuple[ir.DataType, bool]
    ) -> torch.Tensor:
        """`placing` is axis and block size, `target` the type and whether what lies beyond it saturates."""
        dtype, saturate = target
        step = align(scale, x, *placing)
        codes = widen(to_type(divide(x, step), dtype, saturate=saturate))
        return (codes * step.to(codes.dtype)).to(scale.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG004, D102 - torch's
        x, scale, ctx.placing, (ctx.dtype, _) = inputs
        ctx.save_for_backward(x, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: D102 - torch's
        largest = _largest(ctx.dtype)
        rounding = lambda ratio: to_type(ratio, ctx.dtype).to(ratio.dtype)  # noqa: E731 - it reads as what it is
        return *_learned_step(ctx, gradients[0], (-largest, largest), rounding), None, None


def _learned_step(
    ctx: Any, gradient: torch.Tensor, reach: tuple[Limit, Limit], rounding: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x and scale, the first two tensors kept, where needed."""
    x, scale = ctx.saved_tensors[:2]
    ratio = widen(divide(x, align(scale, x, *ctx.placing)))
    clipped = _clip_(ratio.clone(), *reach)
    inside = clipped == ratio
    for_x = for_scale = None
    if ctx.needs_input_grad[0]:
        for_x = torch.where(inside, gradient, 0).to(x.dtype)
    if ctx.needs_input_grad[1]:
        slope = torch.where(inside, rounding(ratio) - ratio, clipped)
        for_scale = collect(slope * gradient, scale, *ctx.placing).to(scale.dtype)
    return for_x, for_scale


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - torch's
        return gradients[0]


def _reach(
    zero_point: torch.Tensor | None, x: torch.Tensor, placing: tuple[int, int], limits: tuple[int, int]
) -> tuple[Limit, Limit]:
    """The bounds less the zero point: where they fall on x / scale."""
    if zero_point is None:
        return limits
    offset = align(zero_point, x, *placing).to(torch.float32)
    return limits[0] - offset, limits[1] - offset


def _clip_(codes: torch.Tensor, least: Limit, most: Limit) -> torch.Tensor:
    return codes.clamp_(least, most)  # type: ignore[arg-type]  # both are numbers, or both are tensors


def _largest(dtype: ir.DataType) -> float:
    return MINIFLOATS[dtype].largest if dtype in MINIFLOATS else torch.finfo(held_as(dtype)).max
