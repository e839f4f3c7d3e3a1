"""AdaRound (Nagel et al. 2020): learns for each weight whether it is rounded up or down. No graph, no inputs.

A layer's output error follows exactly from the second moments of its inputs, so that no input is kept, every iteration
sees all of them, and nothing is random. Weights that are 0 stay 0, and so do the masks of pruning. Legend: G groups of
rows with the same inputs, K columns, R rows.
"""

import torch

from worker.engine.tensors.blockwise import Blocks, output_error

ITERATIONS = 500
_LOW, _HIGH = -0.1, 1.1
"""Ends of the stretched sigmoid, beyond the 0 and 1 that it must reach."""
_RATE = 0.05
_PULL = 15.0
"""Weight of the pull to whole numbers, where rounding to nearest costs an output error of 1 for each weight."""
_SHARPNESS = (20.0, 2.0)
"""beta at the beginning and at the end: at first only weights near a decision are pulled to it."""
_FREE = 0.2
"""Share of the iterations without a pull."""


def adaround(weight: torch.Tensor, hessian: torch.Tensor, blocks: Blocks, iterations: int = ITERATIONS) -> torch.Tensor:
    """Codes of `weight`, both [R, K]; rows where nothing is gained over rounding to nearest stay nearest.

    `hessian` is E[x x^T] of the inputs of each group, [G, K, K], or anything proportional.
    """
    scale, zero = blocks.spread(weight.shape[1])
    exact = weight / scale + zero
    below, nearest, hessian = exact.floor(), blocks.encode(weight), hessian.to(weight.dtype)
    is_free = weight != 0  # zero has a code of its own, which is where its `below` lies

    def change(codes: torch.Tensor) -> torch.Tensor:
        return blocks.decode(codes.clamp(0, blocks.grid.highest)) - weight

    worst = output_error(change(nearest), hessian)
    unit = worst.clamp(min=torch.finfo(worst.dtype).tiny).reshape(-1, 1) / weight.shape[1]
    variable = _unsoftened(exact - below).requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=_RATE)
    for iteration in range(iterations):
        share = _softened(variable) * is_free
        delta = change(below + share)
        # The gradient of delta H delta^T is 2 delta H: one product where autograd would take three.
        slope = 2 * (delta.detach().reshape(len(hessian), -1, delta.shape[1]) @ hessian).reshape(delta.shape)
        loss = (slope * delta / unit).sum() + _pull(share, iteration / iterations)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        optimizer.step()
    learned = (below + _softened(variable.detach()).round() * is_free).clamp(0, blocks.grid.highest)
    return torch.where((output_error(change(learned), hessian) < worst).reshape(-1, 1), learned, nearest)


def _pull(share: torch.Tensor, done: float) -> torch.Tensor | float:
    """Falls where shares come near to 0 or 1."""
    if done < _FREE:
        return 0.0
    first, last = _SHARPNESS
    beta = first + (last - first) * (done - _FREE) / (1 - _FREE)
    return _PULL * (1 - (2 * share - 1).abs().pow(beta)).sum()


def _softened(variable: torch.Tensor) -> torch.Tensor:
    """The rectified sigmoid: how far up, 0 to 1, both ends reached."""
    return (variable.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0, 1)


def _unsoftened(share: torch.Tensor) -> torch.Tensor:
    return ((share - _LOW) / (_HIGH - _LOW)).logit()
