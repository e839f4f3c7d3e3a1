"""`PlainTorch`: the training loop that everyone writes, for one batch. Nothing of Slimline is in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RATE, WEIGHT_DECAY = 5e-4, 1e-4
_TEMPERATURE, _ALPHA = 4.0, 0.9


@dataclass(frozen=True)
class PlainTorch:
    """A native module, the batch it learns, labels [N], and a teacher where it is distilled."""

    module: nn.Module
    teacher: nn.Module | None
    inputs: Mapping[str, Tensor]
    labels: Tensor

    def update(self) -> None:
        """zero_grad, forward, loss, backward, step."""
        self.module.train()
        self._optimizer.zero_grad()
        scores = scores_of(self.module(**self.inputs))
        loss = functional.cross_entropy(scores, self.labels)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = scores_of(self.teacher(**self.inputs))
            soft = functional.kl_div(
                functional.log_softmax(scores / _TEMPERATURE, 1),
                functional.log_softmax(wanted / _TEMPERATURE, 1),
                reduction="batchmean",
                log_target=True,
            )
            loss = _ALPHA * soft * _TEMPERATURE**2 + (1 - _ALPHA) * loss
        torch.autograd.backward(loss)
        self._optimizer.step()

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.module.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)


def scores_of(answer: Any) -> Tensor:
    """Class scores [N, C], of a plain module or of one of the transformers library."""
    scores: Tensor = answer if isinstance(answer, Tensor) else answer.logits
    return scores
