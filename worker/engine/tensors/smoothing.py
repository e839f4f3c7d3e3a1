"""SmoothQuant (Xiao et al. 2023): the difficulty of activations moves into weights, channel by channel."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LARGEST = 1e4
"""No scale is larger than this or smaller than its inverse: float32 stays far from its ends."""


def smoothing_scales(activations: Floats, weights: Floats, strength: float = 0.5) -> Floats:
    """The s by which activations are divided and weights multiplied: max|X|^a / max|W|^(1-a), eq. 4 of the paper.

    Arrays have one element for each channel, the largest absolute value; a channel where either is 0 stays. `strength`
    is a, 0 to 1: at 1 all activations become alike, at 0 all weights.
    """
    is_alive = (activations > 0) & (weights > 0) & np.isfinite(activations) & np.isfinite(weights)
    x, w = (np.where(is_alive, each, 1.0) for each in (activations, weights))
    return np.clip(x**strength / w ** (1 - strength), 1 / _LARGEST, _LARGEST)
