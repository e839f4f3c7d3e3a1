"""Learning rates over a training, against torch's own schedulers and by their definitions."""

import math

import pytest
import torch

from worker.engine.training.schedules import rate_factor


def test_cosine_is_torch_s() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for update in range(40):
        assert rate_factor("cosine", update / 40, 0) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_one_cycle_is_torch_s() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=101, final_div_factor=400)
    ours, theirs = [], []
    for update in range(101):
        ours.append(rate_factor("one_cycle", update / 100, 0))
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if update < 100:
            scheduler.step()
    assert max(ours) == 1
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 0.06  # torch rises one update earlier
    assert ours[0] == pytest.approx(theirs[0])
    assert ours[-1] == pytest.approx(theirs[-1])


def test_steps_fall_to_a_tenth_twice() -> None:
    assert [rate_factor("step", done, 0) for done in (0, 0.49, 0.5, 0.74, 0.75, 1)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_warm_up_rises_evenly_and_the_fall_begins_after_it(schedule: str) -> None:
    assert [rate_factor(schedule, done, 0.2) for done in (0.0, 0.05, 0.1, 0.2)] == pytest.approx([0, 0.25, 0.5, 1])


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step", "constant"])
def test_no_rate_is_above_the_highest_or_below_zero(schedule: str) -> None:
    rates = [rate_factor(schedule, done / 1000, 0.05) for done in range(1001)]
    assert all(0 <= rate <= 1 and math.isfinite(rate) for rate in rates)
    assert max(rates) == pytest.approx(1, abs=1e-3)
