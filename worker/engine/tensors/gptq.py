"""GPTQ (Frantar et al. 2022): rounds a matrix column by column; the columns to come make good what each one lost.

No graph and no inputs: what matters of them is in the Hessian of the layer's squared output error. Columns with the
strongest input go first, on scales fixed beforehand: over several spectra that lost less than scales fitted on the way.
Weights that are 0 stay 0, and so do the masks of pruning (as in SparseGPT, Frantar and Alistarh 2023).
Legend: G groups of rows with the same inputs, K columns, R rows.
"""

import torch

from worker.engine.tensors.blockwise import Blocks

DAMPING = 0.01
"""Share of the mean diagonal added to the diagonal, so that it can be inverted."""
_LAZY = 128
"""Columns after which the others are brought up to date at once; a speed-up that changes nothing."""


def gptq(weight: torch.Tensor, hessian: torch.Tensor, blocks: Blocks, damping: float = DAMPING) -> torch.Tensor:
    """Codes of `weight`, both [R, K]; computed in float64.

    `hessian` is E[x x^T] of the inputs of each group, [G, K, K], or anything proportional. Columns whose input is
    always 0 are rounded to nearest.
    """
    order = hessian.diagonal(0, 1, 2).argsort(dim=1, descending=True, stable=True)
    inverse = torch.linalg.cholesky(
        torch.cholesky_inverse(torch.linalg.cholesky(_ordered(hessian, order, damping))), upper=True
    )
    places = order.unsqueeze(1).expand(-1, weight.shape[0] // len(order), -1)

    def by_group(matrix: torch.Tensor) -> torch.Tensor:
        """[R, K] as [G, R / G, K], columns in order."""
        return matrix.double().reshape(places.shape).gather(2, places)

    left, scale, zero = map(by_group, (weight, *blocks.spread(weight.shape[1])))
    is_zero = left == 0
    codes = torch.empty_like(left)
    for start in range(0, left.shape[2], _LAZY):
        end = min(start + _LAZY, left.shape[2])
        errors = torch.empty_like(left[..., start:end])
        for column in range(start, end):
            code = (left[..., column] / scale[..., column]).round() + zero[..., column]
            code = torch.where(is_zero[..., column], zero[..., column], code)
            codes[..., column] = code.clamp(0, blocks.grid.highest)
            lost = left[..., column] - (codes[..., column] - zero[..., column]) * scale[..., column]
            error = errors[..., column - start] = lost / inverse[:, None, column, column]
            left[..., column:end] -= error.unsqueeze(-1) * inverse[:, None, column, column:end]
        left[..., end:] -= errors @ inverse[:, start:end, end:]
    return torch.empty_like(codes).scatter_(2, places, codes).reshape(weight.shape).to(weight.dtype)


def _ordered(hessian: torch.Tensor, order: torch.Tensor, damping: float) -> torch.Tensor:
    """In float64, what keeps it invertible added to its diagonal (1 for an input always 0), columns in order."""
    diagonal = hessian.double().diagonal(0, 1, 2)
    damped = hessian + torch.diag_embed(torch.where(diagonal == 0, 1.0, damping * diagonal.mean(1, keepdim=True)))
    rows = damped.gather(1, order.unsqueeze(2).expand_as(damped))
    return rows.gather(2, order.unsqueeze(1).expand_as(damped))
