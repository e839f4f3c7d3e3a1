"""How far the channels of a tensor are from what a graph tells of them. Pure functions on torch tensors.

Moments are [C], C channels. Both measures are twice the Kullback-Leibler divergence of a normal distribution from one.
"""

import torch

_FLOOR = 1e-2
"""Share of a tensor's mean energy that is added to every variance: a channel that hardly varies tells little."""
_TINY = 1e-20


def moments(values: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel, float32."""
    others = [each for each in range(values.dim()) if each != axis % values.dim()]
    variance, mean = torch.var_mean(values.float(), others, correction=0)
    return mean, variance


def from_stored(
    mean: torch.Tensor, variance: torch.Tensor, stored_mean: torch.Tensor, stored_variance: torch.Tensor
) -> torch.Tensor:
    """Of N(mean, variance) from N(stored mean, stored variance), averaged over channels.

    The logarithm keeps a channel that is far off, for instance a dead one, from drowning the others.
    """
    ratio = (variance + _TINY) / stored_variance
    shift = (mean - stored_mean).square() / stored_variance
    return (ratio - 1 - ratio.log() + shift).clamp(min=0).log1p().mean()


def from_centred(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Of N(mean, variance) from the nearest normal distribution around zero, averaged over channels.

    That is log(1 + mean^2 / variance): the variance of the other is free, and at its best mean^2 + variance.
    """
    energy = mean.square()
    floor = _FLOOR * (energy + variance).mean() + _TINY
    return (energy / (variance + floor)).log1p().mean()
