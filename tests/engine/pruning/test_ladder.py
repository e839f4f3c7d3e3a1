"""The order in which blocks of units go, on numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.pruning.ladder import cut_blocks, in_order, score_keys


def test_blocks_leave_multiples() -> None:
    blocks = cut_blocks(0, np.arange(20), width=1, multiple=8, most=1.0)
    assert [len(block.units) for block in blocks] == [4, 8]
    assert [block.after for block in blocks] == [0.2, 0.6]
    assert [block.middle for block in blocks] == [0.1, 0.4]
    assert np.concatenate([block.units for block in blocks]).tolist() == list(range(12))


def test_wide_units_are_multiples_by_themselves() -> None:
    assert [len(block.units) for block in cut_blocks(0, np.arange(4), width=64, multiple=16, most=1.0)] == [1, 1, 1]


@pytest.mark.parametrize(("units", "multiple", "most"), [(1, 1, 1.0), (4, 8, 1.0), (4, 4, 1.0), (9, 1, 0.1)])
def test_nothing_goes_where_nothing_fits(units: int, multiple: int, most: float) -> None:
    assert cut_blocks(0, np.arange(units), width=1, multiple=multiple, most=most) == []


@given(st.integers(1, 60), st.integers(1, 16), st.integers(1, 4), st.floats(0.1, 1.0))
def test_one_unit_stays_and_no_more_than_the_most_goes(units: int, multiple: int, width: int, most: float) -> None:
    blocks = cut_blocks(0, np.arange(units), width=width, multiple=multiple, most=most)
    gone = 0
    for block in blocks:
        gone += len(block.units)
        assert (units - gone) * width % multiple == 0
        assert block.after == gone / units
    assert gone < units
    assert gone <= most * units


def test_a_group_keeps_its_order() -> None:
    blocks = [cut_blocks(group, np.arange(3) + 3 * group, width=1, multiple=1, most=1.0) for group in range(2)]
    ordered = in_order(blocks, [np.array([5.0, 1.0]), np.array([2.0, 3.0])])
    assert [int(block.units[0]) for block in ordered] == [3, 4, 0, 1]


def test_scores_are_compared_by_their_groups_mean() -> None:
    scores = np.array([1.0, 2.0, 3.0, 100.0, 200.0, 300.0])
    small, large = (
        score_keys(cut_blocks(0, units, width=1, multiple=1, most=1.0), scores, units)
        for units in (np.arange(3), np.arange(3, 6))
    )
    assert small.tolist() == large.tolist() == [0.5, 1.0]
