"""What training must leave as it is: zeros that pruning made. Integer weights are `rewriting`'s."""

from collections.abc import Iterable

import torch


class Zeros:
    """The zeros among `weights`, put back after each update; not of weights that are zero altogether."""

    def __init__(self, weights: Iterable[torch.nn.Parameter]) -> None:
        self._masks: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        for weight in weights:
            zeros = weight.detach() == 0
            if zeros.any() and not zeros.all():
                self._masks.append((weight, zeros))

    @property
    def share(self) -> float:
        """Of zeros in the weights that have any."""
        total = sum(mask.numel() for _, mask in self._masks)
        return sum(int(mask.sum()) for _, mask in self._masks) / total if total else 0.0

    def __len__(self) -> int:
        return len(self._masks)

    @torch.no_grad()
    def keep(self) -> None:
        """Put them back, in place."""
        for weight, mask in self._masks:
            weight.masked_fill_(mask, 0)
