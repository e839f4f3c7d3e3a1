"""Gradients of a branch that was not taken: zero, as `torch.cond` has it, and not missing."""

from collections.abc import Sequence
from typing import Any

import torch


def tie_untaken(results: tuple[Any, ...], own: Sequence[Any], others: Sequence[Any]) -> tuple[Any, ...]:
    """`results` of the branch taken, one of them tied to what only the other branch reads.

    An optimizer then meets a gradient for every weight whichever way the call went.
    """
    if not torch.is_grad_enabled():
        return results
    known = {id(each) for each in own}
    untaken = [
        each for each in others if isinstance(each, torch.Tensor) and each.requires_grad and id(each) not in known
    ]
    for index, result in enumerate(results):
        if untaken and isinstance(result, torch.Tensor) and result.is_floating_point():
            tied: torch.Tensor = _Tie.apply(result, *untaken)  # type: ignore[no-untyped-call]  # torch leaves it so
            return (*results[:index], tied, *results[index + 1 :])
    return results


class _Tie(torch.autograd.Function):
    """The first input as it is; zero gradients to the others."""

    @staticmethod
    def forward(result: torch.Tensor, *untaken: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - only their gradients
        return result.view_as(result)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:  # noqa: ARG004 - torch's
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (gradients[0], *map(torch.zeros_like, ctx.saved_tensors))
