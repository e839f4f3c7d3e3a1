"""Losses of outputs against labels, which may be mixed in pairs. Which labels fit which outputs is told elsewhere.

Legend: N samples, C classes, ... the positions of a label map, none for one label a sample.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

_NO_LABEL = -100
"""A label that torch passes over by itself; none that is counted."""
_SMALLEST_WEIGHT = 1e-12


@dataclass(frozen=True)
class MixedLabels:
    """`labels` [N, ...]; where samples were blended, `share` [N] is their weight and the rest that of `partner`."""

    labels: torch.Tensor
    partner: torch.Tensor | None = None
    share: torch.Tensor | None = None

    def parts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Labels, each with weights that broadcast over them."""
        share = torch.ones_like(self.labels, dtype=torch.float32)
        if self.partner is None or self.share is None:
            yield self.labels, share
            return
        share = share * self.share.reshape(-1, *[1] * (self.labels.dim() - 1))
        yield self.labels, share
        yield self.partner, 1 - share

    def mean(self, loss: Callable[[torch.Tensor], torch.Tensor], ignored: int | None = None) -> torch.Tensor:
        """The mean of `loss`, which gives a number for each label, over all labels but `ignored`; 0 without any.

        `loss` never meets `ignored`: it is given class 0 there.
        """
        total = weight = torch.zeros((), device=self.labels.device)
        for labels, share in self.parts():
            is_used = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
            used = share * is_used
            total = total + (loss(labels.where(is_used, labels.new_zeros(()))) * used).sum()
            weight = weight + used.sum()
        return total / weight.clamp(min=_SMALLEST_WEIGHT)

    def blended(self) -> torch.Tensor:
        """The weighted mean of labels and partners, for labels that are quantities."""
        return torch.stack([labels * share for labels, share in self.parts()]).sum(0)


def cross_entropy(
    scores: torch.Tensor, labels: MixedLabels, *, smoothing: float = 0.0, ignored: int | None = None
) -> torch.Tensor:
    """Mean cross entropy of logits [N, C, ...]; `smoothing` is the share of a label spread over all classes."""

    def loss(true: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            scores, true, reduction="none", label_smoothing=smoothing, ignore_index=_NO_LABEL
        )

    return labels.mean(loss, ignored)


def squared_error(values: torch.Tensor, labels: MixedLabels, scale: torch.Tensor | float) -> torch.Tensor:
    """Mean squared error over `scale`; `values` in any shape with as many elements as the labels."""
    truth = labels.blended().to(values.dtype)
    return (values.reshape(truth.shape) - truth).square().mean() / scale
