"""The two divergences, against torch's own for normal distributions."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from worker.engine.synthesis.divergence import from_centred, from_stored, moments


def test_moments_of_any_axis() -> None:
    values = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    for axis, wanted in ((1, values.transpose(0, 1)), (-1, values.movedim(-1, 0)), (0, values)):
        mean, variance = moments(values, axis)
        torch.testing.assert_close(mean, wanted.flatten(1).mean(1))
        torch.testing.assert_close(variance, wanted.flatten(1).var(1, unbiased=False))


def test_from_stored_is_twice_the_divergence_of_normal_distributions() -> None:
    mean, stored_mean = torch.tensor([0.5, -2.0]), torch.tensor([1.0, 0.0])
    variance, stored_variance = torch.tensor([4.0, 0.25]), torch.tensor([1.0, 2.0])
    twice = 2 * kl_divergence(Normal(mean, variance.sqrt()), Normal(stored_mean, stored_variance.sqrt()))
    found = from_stored(mean, variance, stored_mean, stored_variance)
    assert float(found) == pytest.approx(float(twice.log1p().mean()), rel=1e-5)
    assert float(from_stored(mean, variance, mean, variance)) == pytest.approx(0, abs=1e-6)


def test_from_centred_is_the_least_over_all_deviations() -> None:
    mean, variance = torch.tensor([1.5]), torch.tensor([0.5])
    deviations = torch.linspace(0.2, 5, 20_000)
    least = 2 * kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, deviations)).min()
    assert float(from_centred(mean, variance)) == pytest.approx(float(least), rel=0.05)
    assert float(from_centred(torch.zeros(3), torch.ones(3))) == 0


def test_channels_that_never_vary_give_finite_gradients() -> None:
    values = torch.zeros(8, 2, 4)
    values[:, 1] = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    values.requires_grad_()
    stored = torch.zeros(2), torch.tensor([1e-5, 1.0])
    loss = from_stored(*moments(values, 1), *stored) + from_centred(*moments(values, 1))
    (gradient,) = torch.autograd.grad(loss, values)
    assert bool(gradient.isfinite().all())
