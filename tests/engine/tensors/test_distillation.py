"""Losses against a teacher: beside torch, float64 NumPy and the papers' own identities."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from worker.engine.tensors.distillation import (
    decoupled_divergences,
    scaled_error,
    soft_divergence,
    spread,
    standardize,
)


def scores(seed: int, size: tuple[int, ...] = (7, 5), scale: float = 3.0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_divergence_is_torchs_kl_div(temperature: float) -> None:
    student, teacher = scores(0), scores(1)
    wanted = functional.kl_div(
        torch.log_softmax(student / temperature, 1), torch.softmax(teacher / temperature, 1), reduction="batchmean"
    )
    assert float(soft_divergence(student, teacher, temperature)) == pytest.approx(float(wanted) * temperature**2)
    assert float(soft_divergence(teacher + 5, teacher, temperature)) == pytest.approx(0, abs=1e-12)


def test_at_high_temperature_its_gradient_is_that_of_the_squared_error_of_centred_scores() -> None:
    """Hinton et al. 2015, equation 4: (z - v) / C, once T^2 is multiplied in."""
    student, teacher = scores(0).requires_grad_(), scores(1)
    soft_divergence(student, teacher, 1e4).backward()
    difference = (student - teacher).detach()
    wanted = (difference - difference.mean(1, keepdim=True)) / student.shape[1] / len(student)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, wanted, rtol=1e-2, atol=1e-5)


def test_decoupled_parts_add_up_to_the_divergence() -> None:
    """Zhao et al. 2022, equation 7: KL = TCKD + (1 - p) NCKD."""
    student, teacher, labels = scores(0), scores(1), torch.arange(7) % 5
    target, others = decoupled_divergences(student, teacher, labels)
    p = torch.softmax(teacher, 1)[torch.arange(7), labels]
    whole = functional.kl_div(torch.log_softmax(student, 1), torch.softmax(teacher, 1), reduction="none").sum(1)
    torch.testing.assert_close(target + (1 - p) * others, whole)


def test_decoupled_parts_are_those_of_the_paper() -> None:
    student, teacher, labels = scores(2), scores(3), np.arange(7) % 5
    found = decoupled_divergences(student, teacher, torch.from_numpy(labels))
    for row, label in enumerate(labels):
        b, p_other = [], []
        for values in (student[row].numpy(), teacher[row].numpy()):
            p = softmax(values)
            b.append(np.array([p[label], 1 - p[label]]))
            p_other.append(softmax(np.delete(values, label)))
        assert float(found[0][row]) == pytest.approx((b[1] * np.log(b[1] / b[0])).sum())
        assert float(found[1][row]) == pytest.approx((p_other[1] * np.log(p_other[1] / p_other[0])).sum())


@pytest.mark.parametrize("scale", [0.0, 1.0, 200.0, 3e4])
def test_decoupled_gradients_are_finite_in_float32_however_sure_the_two_are(scale: float) -> None:
    student, teacher = (scores(seed, scale=scale).float() for seed in (0, 1))
    student.requires_grad_()
    target, others = decoupled_divergences(student, teacher, torch.arange(7) % 5)
    (target + others).sum().backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
    assert bool(target.isfinite().all())
    assert bool((others > -1e-4).all())


def test_two_classes_leave_nothing_to_tell_the_others_apart() -> None:
    _, others = decoupled_divergences(scores(0, (4, 2)), scores(1, (4, 2)), torch.tensor([0, 1, 1, 0]))
    torch.testing.assert_close(others, torch.zeros_like(others))


def test_standardized_scores_have_mean_0_and_deviation_1_and_keep_their_order() -> None:
    values = scores(0)
    found = standardize(3 * values + 7).numpy()
    wanted = (values.numpy() - values.numpy().mean(1, keepdims=True)) / values.numpy().std(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(found.argsort(1), values.numpy().argsort(1))


def test_equal_scores_stay_equal_and_have_a_finite_gradient() -> None:
    values = torch.ones(2, 5, requires_grad=True)
    found = standardize(values)
    found.square().sum().backward()
    assert values.grad is not None
    assert not found.any()
    assert bool(values.grad.isfinite().all())


def test_scaled_error_is_1_for_a_student_that_says_the_mean() -> None:
    teacher = scores(0) + 100
    student = torch.full_like(teacher, float(teacher.mean()))
    assert float(scaled_error(student, teacher, spread(teacher))) == pytest.approx(1)
    wanted = functional.mse_loss(scores(1), teacher) / teacher.var(unbiased=False)
    assert float(scaled_error(scores(1), teacher, spread(teacher))) == pytest.approx(float(wanted))


@pytest.mark.parametrize(("values", "wanted"), [([1.0, 3.0], 1.0), ([2.0, 2.0], 4.0), ([0.0, 0.0], 1.0), ([5.0], 25.0)])
def test_spread_is_never_zero(values: list[float], wanted: float) -> None:
    assert spread(torch.tensor(values)) == pytest.approx(wanted)
