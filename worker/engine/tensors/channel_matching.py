"""By what gain and shift each channel of a tensor comes closest to a reference: streamed sums and what follows of them.

Legend: C channels.
"""

from dataclasses import dataclass

import torch

_LEAST_CORRELATION = 0.05
"""Below it a channel says nothing of its reference: its gain would only be noise, or turn its sign."""
_DEAD = 1e-6
"""Share of the reference's variance under which a channel holds nothing that a gain could bring back."""
_NO_CHANGE = 1e-5


@dataclass(frozen=True)
class Match:
    """`gain` and `shift`, [C] in float64: channel c becomes gain[c] x + shift[c]. `is_change`: whether any one does."""

    gain: torch.Tensor
    shift: torch.Tensor
    is_change: bool


class PairedMoments:
    """Sums over pairs of tensors of one shape, in float64, from which the match of their channels follows."""

    def __init__(self) -> None:
        self._n = 0
        self._sums: torch.Tensor | None = None

    def add(self, reference: torch.Tensor, values: torch.Tensor, axis: int) -> None:
        """Add a batch; `axis` counts the channels of both."""
        y, x = (each.movedim(axis, -1).flatten(0, -2).double() for each in (reference, values))
        sums = torch.stack([x.sum(0), y.sum(0), (x**2).sum(0), (y**2).sum(0), (x * y).sum(0)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._n += len(x)

    def match(self, shrinkage: float) -> Match | None:
        """Equal means, and standard deviations whose ratio is the channels' correlation to the power of `shrinkage`.

        0 gives equal statistics: what re-estimating a BatchNorm does, and REPAIR (Jordan et al. 2022). 1 gives least
        squares, which shrinks what is mostly error. Dead channels are only shifted, those with NaN or infinities left
        alone. None before any element.
        """
        if self._sums is None or not self._n:
            return None
        mean_x, mean_y, square_x, square_y, product = self._sums / self._n
        variance_x, variance_y = (square_x - mean_x**2).clamp(min=0), (square_y - mean_y**2).clamp(min=0)
        covariance = product - mean_x * mean_y
        is_alive = (variance_x > _DEAD * variance_y) & (variance_y > 0)
        ones = torch.ones_like(mean_x)
        correlation = covariance / torch.where(is_alive, variance_x * variance_y, ones).sqrt()
        ratio = (variance_y / torch.where(is_alive, variance_x, ones)).sqrt()
        gain = torch.where(is_alive, ratio * correlation.clamp(_LEAST_CORRELATION, 1) ** shrinkage, ones)
        shift = mean_y - gain * mean_x
        is_finite = self._sums.isfinite().all(0)
        gain, shift = torch.where(is_finite, gain, ones), torch.where(is_finite, shift, 0 * ones)
        noticeable = _NO_CHANGE * torch.where(is_finite, square_y, ones).sqrt()
        changes = ((gain - 1).abs() > _NO_CHANGE) | (((gain - 1) * mean_x + shift).abs() > noticeable)
        return Match(gain, shift, bool((changes & is_finite).any()))
