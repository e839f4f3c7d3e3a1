"""Scaled dot-product attention over heads, shared by ONNX's operators and the contributed ones. No operator lives here.

Legend: N samples, H heads, Q queries, K keys, D head size. Q, K, V tensors are (N, H, Q or K, D).
"""

import math
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.half_precision import rounds_each_step, stepwise_softmax

FLAT = 3
"""Rank of a tensor with its heads in the last dimension, (N, length, H * D)."""


@dataclass(frozen=True)
class Attend:
    """One form of attention. `scale` None is 1 / sqrt(D); `softmax` None is the type of the scores."""

    scale: float | None = None
    softcap: float = 0.0
    softmax: torch.dtype | None = None
    declared: ir.DataType | None = None
    """The type that the graph gives q, k and v."""

    def fused(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """By torch's kernels, which have no softcap. A row without any key is zero there too."""
        return F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=is_causal, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1]
        )

    def staged(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, stage: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step by step: the output, and the scores (N, H, Q, K): 0 raw, 1 capped, 2 with the mask, 3 after softmax."""
        if q.shape[1] != k.shape[1]:
            k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
        number = math.sqrt(1 / math.sqrt(q.shape[3]) if self.scale is None else self.scale)
        root = q.new_full((), number) if self.is_stepwise(q) else number
        raw = (q * root) @ (k * root).transpose(2, 3)
        capped = self.softcap * torch.tanh(raw / self.softcap) if self.softcap else raw
        biased = _masked(capped, mask)
        probability = self._softmax(biased, mask).to(q.dtype)
        return probability @ v, (raw, capped, biased, probability)[stage]

    def is_stepwise(self, q: torch.Tensor) -> bool:
        """Whether each step is rounded, which torch's kernels do not."""
        return self.softmax is None and rounds_each_step(q, self.declared)

    def _softmax(self, scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        softmax = stepwise_softmax if self.is_stepwise(scores) else partial(torch.softmax, dtype=self.softmax)
        if mask is None:
            return softmax(scores, -1)
        # A row that may look at nothing is zero. Its scores are replaced before, or the gradient would be nan.
        is_open = mask.any(-1, keepdim=True) if mask.dtype is torch.bool else (mask != -math.inf).any(-1, keepdim=True)
        return torch.where(is_open, softmax(torch.where(is_open, scores, 0), -1), 0)


def _masked(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return scores
    return torch.where(mask, scores, -math.inf) if mask.dtype is torch.bool else scores + mask


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(N, length, H * D) as (N, H, length, D)."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """Undoes `split_heads`."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])


def band(
    queries: int, keys: int, offset: int | torch.Tensor, window: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """Which keys lie at most `window` to the left and right of a query: (Q, K), or as `offset` broadcasts. -1 is any.

    `offset`: the keys before the first query.
    """
    left, right = window
    ahead = torch.arange(keys, device=device) - torch.arange(queries, device=device).unsqueeze(1) - offset
    if left < 0:
        return ahead <= right
    return ahead >= -left if right < 0 else (ahead >= -left) & (ahead <= right)


def join_masks(allowed: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor | None:
    """What both let through: booleans, or a bias that is -inf where one does not."""
    if allowed is None or mask is None:
        return mask if allowed is None else allowed
    return allowed & mask if mask.dtype is torch.bool else torch.where(allowed, mask, -math.inf)
