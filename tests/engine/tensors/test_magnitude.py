"""Magnitude masks: exact in number, right in choice, the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker.engine.tensors.magnitude import smallest, smallest_of_all

WEIGHTS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=st.integers(-3, 3).map(float))


@given(WEIGHTS, st.floats(0.01, 0.99))
def test_exact_number_and_smallest_first(weights: np.ndarray, amount: float) -> None:
    mask = smallest(weights, amount)
    assert mask.shape == weights.shape
    assert mask.sum() == round(amount * weights.size)
    if mask.any() and not mask.all():
        assert np.abs(weights[mask]).max() <= np.abs(weights[~mask]).min()


@given(st.lists(WEIGHTS, min_size=1, max_size=4), st.floats(0.01, 0.99))
def test_global_is_exact_over_all_tensors(tensors: list[np.ndarray], amount: float) -> None:
    masks = smallest_of_all(tensors, amount)
    assert sum(mask.sum() for mask in masks) == round(amount * sum(tensor.size for tensor in tensors))
    gone = np.concatenate([np.abs(tensor[mask]) for tensor, mask in zip(tensors, masks, strict=True)])
    kept = np.concatenate([np.abs(tensor[~mask]) for tensor, mask in zip(tensors, masks, strict=True)])
    if gone.size and kept.size:
        assert gone.max() <= kept.min()


def test_ties_go_by_position() -> None:
    assert smallest(np.ones(4), 0.5).tolist() == [True, True, False, False]


def test_same_zeros_as_torch() -> None:
    prune = pytest.importorskip("torch.nn.utils.prune")
    torch = pytest.importorskip("torch")
    weights = np.random.default_rng(0).normal(size=(8, 9)).astype(np.float32)
    layer = torch.nn.Linear(9, 8)
    layer.weight.data = torch.from_numpy(weights.copy())
    prune.l1_unstructured(layer, "weight", 0.3)
    assert np.array_equal(layer.weight_mask.numpy() == 0, smallest(weights, 0.3))
