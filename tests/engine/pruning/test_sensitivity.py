"""What a measured curve of losses says of the order of blocks, on numbers."""

import numpy as np

from worker.engine.pruning.ladder import cut_blocks
from worker.engine.pruning.sensitivity import Curve, lower_hull


def test_the_hull_leaves_out_what_lies_above() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 3.0, 2.0, 6.0, 8.0])
    assert lower_hull(x, y) == [0, 2, 4]


def test_keys_are_loss_for_what_is_saved() -> None:
    curve = Curve(np.array([0, 0.5, 1.0]), np.array([0, 0.1, 0.5]), np.array([0, 0.2, 0.4]))
    blocks = cut_blocks(0, np.arange(4), width=1, multiple=1, most=1.0)
    assert np.allclose(curve.keys(blocks), [0.5, 0.5, 2.0])


def test_a_dent_in_the_curve_does_not_stop_what_lies_behind() -> None:
    dented = Curve(np.array([0, 0.5, 1.0]), np.array([0, 0.9, 0.5]), np.array([0, 0.2, 0.4]))
    blocks = cut_blocks(0, np.arange(4), width=1, multiple=1, most=1.0)
    assert np.allclose(dented.keys(blocks), 1.25)
