"""Scales as they are learned: in their logarithm, so that a step changes each by a share of itself. Torch alone."""

import math
from typing import Any

import torch
from torch import nn

STEEPEST = 0.1
"""Of what a scale's logarithm may get as gradient: SGD with rate 0.01 and momentum 0.9 then moves it by 1 % at most."""
WIDEST = 256.0
"""By which factor a scale may leave its start: all codes of 8 bits are then one, or clipped."""


class LearnedScale(nn.Module):
    """Parametrizes a scale by the logarithm of what it is to its start, which is exact at first.

    Under Adam a learning rate r changes a scale by about the share r in a step. Plain gradients are weighed as LSQ
    does (Esser et al. 2020), so that scales and weights change by like shares: by 1 / sqrt(n * q), with n the elements
    that one scale serves and q the highest code; and by the scale's own square, for the logarithm. What is steep even
    so, as in a first layer of few weights, is clipped: SGD would run away with it.
    """

    start: torch.Tensor
    weight: torch.Tensor

    def __init__(self, scale: torch.Tensor, served: float, highest: float) -> None:
        """`served` and `highest` are n and q; `scale` has any shape."""
        super().__init__()
        self._dtype = scale.dtype
        start = scale.detach().float()
        mean_square = start.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
        self.register_buffer("start", start)
        self.register_buffer("weight", 1 / (mean_square * math.sqrt(max(1.0, served * highest))))

    def forward(self, logarithm: torch.Tensor) -> torch.Tensor:
        """The scale; at 0 it is where it started."""
        weighed: torch.Tensor = _Weighed.apply(logarithm, self.weight)  # type: ignore[no-untyped-call]  # torch leaves it so
        return (self.start * torch.exp(weighed)).to(self._dtype)

    def right_inverse(self, scale: torch.Tensor) -> tuple[torch.Tensor]:
        """In float32, also of a scale in half precision."""
        return (torch.log(scale.detach().float() / self.start),)

    def bound_(self, logarithm: torch.Tensor, least: torch.Tensor | None = None) -> None:
        """Bring `logarithm` back, in place, into what is allowed; `least` is the smallest scale."""
        limit = math.log(WIDEST)
        logarithm.clamp_(-limit, limit)
        if least is not None:
            logarithm.copy_(torch.maximum(logarithm, torch.log((least / self.start).clamp(min=1 / WIDEST))))


class _Weighed(torch.autograd.Function):
    """Its input, whose gradient is multiplied by a weight and clipped."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - for the gradient
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG004 - torch's
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (gradients[0] * ctx.saved_tensors[0]).clamp(-STEEPEST, STEEPEST), None
