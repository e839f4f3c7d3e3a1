"""n:m masks: the right number in every group, the least of them, the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.tensors.semi_structured import least_of_groups


@given(st.integers(2, 8), st.data())
def test_every_group_loses_its_least(group: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, group - 1))
    axis = data.draw(st.integers(0, 2))
    shape = [data.draw(st.integers(1, 4)) for _ in range(3)]
    shape[axis] = group * data.draw(st.integers(1, 3))
    scores = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 5, shape).astype(np.float32)
    mask = least_of_groups(scores, keep, group, axis)
    assert mask.shape == scores.shape
    for start in range(0, shape[axis], group):
        here, lost = (np.take(each, range(start, start + group), axis) for each in (scores, mask))
        assert (lost.sum(axis) == group - keep).all()
        assert (np.where(lost, here, -1).max(axis) <= np.where(lost, np.inf, here).min(axis)).all()


def test_among_equals_the_earlier_go() -> None:
    mask = least_of_groups(np.ones((1, 8), np.float32), keep=2, group=4, axis=1)
    assert mask.tolist() == [[True, True, False, False] * 2]


def test_same_choice_as_torch_makes_for_its_sparse_kernels() -> None:
    sparse = pytest.importorskip("torch.ao.pruning").WeightNormSparsifier
    torch = pytest.importorskip("torch")
    layer = torch.nn.Sequential(torch.nn.Linear(64, 8))
    sparsifier = sparse(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(layer, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    expected = layer[0].parametrizations.weight[0].mask.numpy() == 0
    weights = layer[0].parametrizations.weight.original.detach().numpy()
    assert np.array_equal(least_of_groups(np.abs(weights), 2, 4, axis=1), expected)
