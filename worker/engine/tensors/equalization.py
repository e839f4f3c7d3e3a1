"""Cross-layer equalization (Nagel et al. 2019, Data-Free Quantization): channel ranges of neighbours become alike.

Arrays have one element for each channel between two layers.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
_SMALLEST = 1e-8
"""Ranges below this, relative to the layer's largest, count as dead channels and stay as they are."""


def balancing_scales(range_before: Floats, range_after: Floats) -> NDArray[np.float64]:
    """The s by which channels before are divided and those after multiplied, so that both ranges become their mean.

    The mean is geometric: s = sqrt(before / after), eq. 11 of the paper. Ranges are largest absolute weights, >= 0.
    """
    before, after = range_before.astype(np.float64), range_after.astype(np.float64)
    is_alive = (before > _SMALLEST * before.max(initial=0)) & (after > _SMALLEST * after.max(initial=0))
    return np.where(is_alive, np.sqrt(np.divide(before, after, out=np.ones_like(before), where=is_alive)), 1.0)
