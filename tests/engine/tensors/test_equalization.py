"""Scales that bring the ranges of neighbouring layers together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.tensors.equalization import LayerRanges, balancing_scales, equalizing_scales, largest_by_label

RANGES = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=1, max_size=8)


def test_by_hand() -> None:
    assert balancing_scales(np.array([8.0, 1.0]), np.array([2.0, 4.0])).tolist() == [2.0, 0.5]


def test_a_dead_channel_stays() -> None:
    assert balancing_scales(np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0])).tolist() == [1.0, 1.0, 1.0]
    assert balancing_scales(np.zeros(2), np.zeros(2)).tolist() == [1.0, 1.0]


@given(RANGES)
def test_both_sides_get_the_geometric_mean(rows: list[tuple[float, float]]) -> None:
    before, after = np.array(rows).T
    scales = balancing_scales(before, after)
    np.testing.assert_allclose(before / scales, np.sqrt(before * after), rtol=1e-9)
    np.testing.assert_allclose(after * scales, np.sqrt(before * after), rtol=1e-9)


NONE = np.zeros((1, 1), np.int64)
ROWS, COLUMNS = np.array([[1], [2], [3]]), np.array([[1, 2, 3]])


def test_largest_by_label() -> None:
    table = np.array([[1.0, 2.0], [3.0, 0.5]])
    assert largest_by_label(table, np.array([[1], [2]]), 4).tolist() == [0, 2, 3, 0]
    assert largest_by_label(table, np.array([3, 3]), 4).tolist() == [0, 0, 0, 3]
    assert largest_by_label(table, np.array([[1, 2], [2, 0]]), 3).tolist() == [0.5, 1, 3]


def test_two_layers_meet() -> None:
    generator = np.random.default_rng(0)
    before, after = (generator.uniform(0.01, 10, (3, 3)) for _ in range(2))
    scales = equalizing_scales([LayerRanges(before, NONE, ROWS), LayerRanges(after, COLUMNS, NONE)], 4)
    np.testing.assert_allclose(scales[1:], balancing_scales(before.max(1), after.max(0)), rtol=1e-3)
    assert scales[0] == 1


def test_of_two_readers_the_geometric_mean_counts() -> None:
    before, small, large = np.array([1.0, 1, 1]), np.array([1.0, 16, 81]), np.array([1e3, 1e3, 1e3])
    layers = [
        LayerRanges(before.reshape(-1, 1), NONE, ROWS),
        LayerRanges(small.reshape(1, -1), COLUMNS, NONE),
        LayerRanges(large.reshape(1, -1), COLUMNS, NONE),
    ]
    np.testing.assert_allclose(equalizing_scales(layers, 4)[1:], (small * large) ** -0.25, rtol=2e-3)


def test_a_layer_between_two_scales_settles() -> None:
    """A depthwise layer reads one scale and writes another: ranges a, d, b become (a d b)^(1/3) each."""
    a, d, b = (np.array(row, float) for row in ([1, 100, 3], [10, 1, 1], [0.1, 1, 50]))
    layers = [
        LayerRanges(a.reshape(-1, 1), NONE, ROWS),
        LayerRanges(d.reshape(-1, 1), ROWS, ROWS + 3),
        LayerRanges(b.reshape(1, -1), COLUMNS + 3, NONE),
    ]
    scales = equalizing_scales(layers, 7)
    for made in (a / scales[1:4], d * scales[1:4] / scales[4:], b * scales[4:]):
        np.testing.assert_allclose(made, np.cbrt(a * d * b), rtol=5e-3)


def test_what_no_layer_reads_stays() -> None:
    assert equalizing_scales([LayerRanges(np.ones((3, 3)) * 7, NONE, ROWS)], 4).tolist() == [1, 1, 1, 1]
    assert equalizing_scales([], 1).tolist() == [1]


def test_almost_dead_channels_stay() -> None:
    before, after = np.array([[1.0], [1e-12], [1]]), np.array([[4.0, 4, 4]])
    scales = equalizing_scales([LayerRanges(before, NONE, ROWS), LayerRanges(after, COLUMNS, NONE)], 4)
    np.testing.assert_allclose(scales, [1, 0.5, 1, 0.5], rtol=1e-3)
