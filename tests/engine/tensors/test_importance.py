"""Importance of slices against hand numbers, naive loops and torch."""

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16

from worker.engine.tensors import importance

WEIGHT = np.array([[[1.0, -2.0], [0.0, 3.0]], [[-4.0, 0.5], [2.0, 0.0]]], np.float32)


def test_sums_by_hand() -> None:
    assert importance.l1(WEIGHT, 0).tolist() == [6, 6.5]
    assert importance.l1(WEIGHT, 1).tolist() == [7.5, 5]
    assert importance.l2(WEIGHT, 0).tolist() == [14, 20.25]
    assert importance.l2(WEIGHT, -1).tolist() == [21, 13.25]
    assert importance.l1(np.array([-0.5, 2.0]), 0).tolist() == [0.5, 2]


def test_scores_of_parts_add_up() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 5, 3))
    for score in (importance.l1, importance.l2):
        parts = score(weight[:, :2], 0) + score(weight[:, 2:], 0)
        np.testing.assert_allclose(parts, score(weight, 0), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_half_precision_does_not_overflow(dtype: type) -> None:
    weight = np.full((2, 40_000), 256).astype(dtype)
    assert importance.l1(weight, 0).tolist() == [256 * 40_000] * 2
    assert importance.l2(weight, 0).tolist() == [256**2 * 40_000] * 2


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_distances_are_those_of_torch(axis: int) -> None:
    weight = np.random.default_rng(1).standard_normal((7, 5, 3, 4)).astype(np.float32)
    slices = torch.from_numpy(weight).double().movedim(axis, 0).flatten(1)
    distances = torch.cdist(slices, slices, compute_mode="donot_use_mm_for_euclid_dist")
    np.testing.assert_allclose(importance.fpgm(weight, axis), distances.sum(1).numpy(), rtol=1e-12)


def test_distances_of_more_slices_than_fit_in_one_part() -> None:
    weight = np.random.default_rng(2).standard_normal((2500, 1800)).astype(np.float32)
    scores = importance.fpgm(weight, 0)
    for index in (0, 1700, 2499):
        naive = np.linalg.norm(weight[index].astype(np.float64) - weight, axis=1).sum()
        assert scores[index] == pytest.approx(naive, rel=1e-12)


def test_the_geometric_median_is_least_important() -> None:
    corners = np.array([[3.0, 0], [-3, 0], [0, 3], [0, -3], [0.1, 0]])
    assert importance.fpgm(corners, 0).argmin() == 4
    assert importance.fpgm(np.ones((3, 2)), 0).tolist() == [0, 0, 0]


def test_random_scores_come_from_the_seed() -> None:
    assert np.array_equal(importance.random(100, 3), importance.random(100, 3))
    assert not np.array_equal(importance.random(100, 3), importance.random(100, 4))
    assert importance.random(10_000, 0).mean() == pytest.approx(0.5, abs=0.02)


def test_nothing_to_score() -> None:
    for score in (importance.l1, importance.l2, importance.fpgm):
        assert score(np.zeros((0, 3)), 0).shape == (0,)
        assert score(np.zeros((3, 0)), 0).tolist() == [0, 0, 0]
