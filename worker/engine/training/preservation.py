"""What training must leave as it is: zeros that pruning made. Integer weights are `rewriting`'s."""

from collections.abc import Iterable

import torch

from worker.engine.training.optimization import is_matrix, is_scale


class Zeros:
    """The zeros among weights, put back after each update.

    Vectors are left out, as many biases begin at zero, and so are weights that are zero altogether.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._masks: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        for parameter in parameters:
            if is_matrix(parameter.shape) and not is_scale(parameter):
                zeros = parameter.detach() == 0
                if zeros.any() and not zeros.all():
                    self._masks.append((parameter, zeros))

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
        for parameter, mask in self._masks:
            parameter.masked_fill_(mask, 0)
