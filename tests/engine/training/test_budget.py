"""How long a training lasts: by epochs, by updates, by time."""

import pytest

from app.contracts.failure import SlimlineError
from app.contracts.training import TrainingOptions
from worker.engine.training.budget import Budget


def test_epochs_are_counted_in_updates() -> None:
    budget = Budget(TrainingOptions(epochs=3), steps_per_epoch=4)
    assert budget.updates == 12
    assert [budget.is_over(update) for update in (0, 11, 12)] == [False, False, True]
    assert [budget.middle(update) for update in (0, 11)] == pytest.approx([0.5 / 12, 11.5 / 12])
    assert budget.remaining_s(9, 2.0) == 6


def test_ten_epochs_where_nothing_is_said() -> None:
    assert Budget(TrainingOptions(), 7).updates == 70


def test_updates_may_end_within_an_epoch() -> None:
    assert Budget(TrainingOptions(steps=5), 4).updates == 5


def test_time_that_was_spent_before_a_kill_counts() -> None:
    budget = Budget(TrainingOptions(seconds=1000), 4, spent_s=999.9999)
    assert 0.99 < budget.done(3) <= 1
    assert Budget(TrainingOptions(seconds=1000), 4, spent_s=1001).is_over(1)
    assert budget.remaining_s(3, 100.0) < 1


def test_too_little_time_for_one_update_is_told() -> None:
    budget = Budget(TrainingOptions(seconds=0.5), 4)
    budget.check_first(0.4)
    with pytest.raises(SlimlineError) as caught:
        budget.check_first(3.0)
    assert caught.value.failure.code == "TIME_BUDGET_TOO_SMALL"
    assert "3 s" in caught.value.failure.message
    Budget(TrainingOptions(epochs=1), 4).check_first(1e9)
