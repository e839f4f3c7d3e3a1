"""Losses on labels beside torch's: smoothing, labels mixed in pairs, pixels that count for nothing."""

import pytest
import torch
from torch.nn import functional

from worker.engine.tensors.label_losses import MixedLabels, cross_entropy, squared_error

IGNORED = 255


def random_scores(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    scores, labels = random_scores(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = functional.cross_entropy(scores, labels, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(scores, MixedLabels(labels), smoothing=smoothing), wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_pixels_count_for_nothing(smoothing: float) -> None:
    scores = random_scores(2, 3, 4, 5)
    labels = torch.arange(2 * 4 * 5).reshape(2, 4, 5) % 3
    labels[0, :2], labels[1, 3, 3] = IGNORED, IGNORED
    wanted = functional.cross_entropy(scores, labels, ignore_index=IGNORED, label_smoothing=smoothing)
    found = cross_entropy(scores, MixedLabels(labels), smoothing=smoothing, ignored=IGNORED)
    torch.testing.assert_close(found, wanted)


def test_a_map_of_ignored_pixels_costs_nothing_and_teaches_nothing() -> None:
    scores = random_scores(1, 3, 2, 2).requires_grad_()
    loss = cross_entropy(scores, MixedLabels(torch.full((1, 2, 2), IGNORED)), ignored=IGNORED)
    loss.backward()
    assert scores.grad is not None
    assert float(loss.detach()) == 0
    assert not scores.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_labels_are_soft_targets(smoothing: float) -> None:
    scores, labels, partner = random_scores(3, 4), torch.tensor([0, 1, 2]), torch.tensor([3, 1, 0])
    share = torch.tensor([0.7, 0.2, 1.0])
    targets = share[:, None] * functional.one_hot(labels, 4) + (1 - share[:, None]) * functional.one_hot(partner, 4)
    wanted = functional.cross_entropy(scores, targets, label_smoothing=smoothing)
    found = cross_entropy(scores, MixedLabels(labels, partner, share), smoothing=smoothing)
    torch.testing.assert_close(found, wanted)


def test_a_mixed_map_weighs_pixels_by_what_is_labelled() -> None:
    scores, labels = random_scores(2, 3, 2, 2), torch.zeros(2, 2, 2, dtype=torch.int64)
    partner = torch.full((2, 2, 2), IGNORED)
    mixed = MixedLabels(labels, partner, torch.tensor([0.25, 0.25]))
    torch.testing.assert_close(cross_entropy(scores, mixed, ignored=IGNORED), functional.cross_entropy(scores, labels))


def test_squared_error_is_torchs_over_the_scale_whatever_the_shape() -> None:
    values, labels = random_scores(5, 1), torch.arange(5, dtype=torch.float32)
    wanted = functional.mse_loss(values[:, 0], labels) / 4
    torch.testing.assert_close(squared_error(values, MixedLabels(labels), 4.0), wanted)


def test_mixed_quantities_are_blended() -> None:
    values, labels, partner = random_scores(2, 3), torch.ones(2, 3), torch.zeros(2, 3)
    share = torch.tensor([0.3, 0.9])
    wanted = functional.mse_loss(values, share[:, None].expand(2, 3))
    torch.testing.assert_close(squared_error(values, MixedLabels(labels, partner, share), 1.0), wanted)
