"""Labels follow the elements they belong to: against NumPy moving an array in which each element has its label."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.graph.shapes import Dims
from worker.engine.quantization.folding.labels import along, concatenated, fit, reshaped, with_rank
from worker.engine.quantization.folding.unions import Unions


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Two shapes of as many elements, and an axis of the first."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=5))
    cut = st.lists(st.integers(0, len(factors)), max_size=3).map(sorted)
    shapes = []
    for cuts in (draw(cut), draw(cut)):
        ends = [0, *cuts, len(factors)]
        shapes.append([prod(factors[start:end]) for start, end in pairwise(ends)])
    return shapes[0], shapes[1], draw(st.integers(0, len(shapes[0]) - 1))


@given(reshapes())
def test_reshape_moves_labels_with_their_elements(case: tuple[list[int], list[int], int]) -> None:
    before, after, axis = case
    labels = np.arange(before[axis]).reshape([-1 if i == axis else 1 for i in range(len(before))])
    got = reshaped(labels, list(before), list(after))
    assert got is not None
    assert np.array_equal(np.broadcast_to(got, after), np.broadcast_to(labels, before).reshape(after))


@pytest.mark.parametrize(
    ("before", "after", "shape"),
    [
        (["n", 4, 1, 1], ["n", 4], (1, 4)),
        (["n", None, 4], [None, None, 2, 2], (1, 1, 2, 2)),
        (["n", 4, "h", "w"], ["n", 4, None], (1, 4, 1)),
        (["n", 4, "h", "w"], ["n", None], None),
        ([None, 4, None], [None, 4, None, None], None),
        ([2, 4], [None, 4], (1, 4)),
    ],
)
def test_unknown_sizes(before: Dims, after: Dims, shape: tuple[int, ...] | None) -> None:
    full = np.arange(4).reshape([4 if size == 4 else 1 for size in before])
    got = reshaped(full, before, after)
    assert (None if got is None else got.shape) == shape


def test_concat_labels_what_is_uniform_element_by_element() -> None:
    got = concatenated([np.array([[1], [2]]), np.array([[7]])], 0, [2, 3])
    assert got.tolist() == [[1], [2], [7], [7], [7]]


@pytest.mark.parametrize(
    ("labels", "axis", "size", "expected"),
    [
        ([[[1]], [[2]]], -3, 2, [1, 2]),
        ([[[1]], [[2]]], -1, 5, None),
        ([5], -3, 2, [5, 5]),
        ([1, 2, 3], -1, 2, None),
    ],
)
def test_labels_of_one_axis(labels: Sequence[object], axis: int, size: int, expected: list[int] | None) -> None:
    got = along(np.array(labels), axis, size)
    assert (None if got is None else got.tolist()) == expected


def test_rank_and_fit() -> None:
    assert with_rank(np.ones((1, 3)), 1) is not None
    assert with_rank(np.ones((2, 3)), 1) is None
    assert fit(np.ones((4, 1)), (4, 9))
    assert not fit(np.ones((4, 1)), (9,))
    assert not fit(np.ones(4), (3,))


def test_unions() -> None:
    unions = Unions()
    first, second = unions.fresh(3), unions.fresh(3)
    unions.join(first, second[::-1].copy())
    unions.join(second[:1], np.zeros((), np.int64))
    assert not unions.is_free(first[2:])
    assert unions.is_free(first)
    assert unions.numbered().tolist() == [0, 1, 2, 0, 0, 2, 1]
