"""Bias correction (Nagel et al. 2019, section 4.2): sums from which the mean of a layer's outputs follows.

A layer without its bias is linear, and so is a sum over samples: the layer applied to summed inputs gives summed
outputs, borders and strides included.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Summed:
    """`values`, of the shape [1, ...] of one sample, are the sum of `count` samples in float64."""

    values: torch.Tensor
    count: int

    @classmethod
    def over_samples(cls, values: torch.Tensor) -> "Summed":
        """Over axis 0 of [N, ...]: what a convolution reads, whose places differ at the borders."""
        return cls(values.sum(0, keepdim=True, dtype=torch.float64), len(values))

    @classmethod
    def over_rows(cls, values: torch.Tensor) -> "Summed":
        """Over all axes of [..., K] but the last: what a matrix multiplies row by row."""
        rows = values.reshape(-1, values.shape[-1])
        return cls(rows.sum(0, keepdim=True, dtype=torch.float64), len(rows))

    def __add__(self, other: "Summed") -> "Summed":
        return Summed(self.values + other.values, self.count + other.count)


def channel_totals(outputs: torch.Tensor, axis: int) -> tuple[torch.Tensor, int]:
    """The sum of `outputs` for each channel of `axis`, shape [C], and how many elements a channel has."""
    by_channel = outputs.movedim(axis, -1).flatten(0, -2)
    return by_channel.sum(0), len(by_channel)
