"""Mean and variance of each channel of a tensor, from streamed sums.

Legend: C channels.
"""

import torch


class ChannelMoments:
    """Sums over batches in float64. Empty until the first."""

    def __init__(self) -> None:
        self._n = 0
        self._sum = self._squares = torch.zeros(())

    def add(self, values: torch.Tensor, axis: int) -> None:
        """Add a batch; `axis` counts the channels."""
        flat = values.detach().movedim(axis, -1).flatten(0, -2).double()
        self._sum = self._sum.to(flat.device) + flat.sum(0)
        self._squares = self._squares.to(flat.device) + flat.square().sum(0)
        self._n += len(flat)

    @property
    def mean(self) -> torch.Tensor:
        """[C]."""
        return self._sum / self._n

    @property
    def variance(self) -> torch.Tensor:
        """[C], over all elements (population)."""
        return (self._squares / self._n - self.mean.square()).clamp(min=0)
