"""Running extremes."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker.engine.tensors.extremes import Extremes, widen

VALUES = hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32))


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_batches_give_what_the_whole_gives(parts: list[np.ndarray]) -> None:
    extremes = Extremes()
    for part in parts:
        extremes = widen(extremes, torch.from_numpy(part))
    everything = np.concatenate(parts)
    finite = everything[np.isfinite(everything)]
    assert extremes.are_finite == (finite.size == everything.size)
    if finite.size:
        assert (extremes.low, extremes.high) == (finite.min(), finite.max())
        assert extremes.largest == np.abs(finite).max()
    else:
        assert extremes.largest == 0
