"""Which state of a training is given back."""

from worker.engine.training.kept import Kept, State
from worker.engine.training.selection import Judgement


def make_state(epoch: float, value: float | None, error: float = 0.01) -> State:
    return State(epoch, {}, None if value is None else Judgement("top1", value, value, error))


def choose(values: list[float | None], keep: str = "best") -> float:
    kept = Kept(keep)
    for epoch, value in enumerate(values):
        kept.add(make_state(epoch, value))
    return kept.choose().epoch


def test_an_earlier_state_must_be_better_by_more_than_chance() -> None:
    assert choose([0.5, 0.9, 0.895]) == 2
    assert choose([0.5, 0.9, 0.88]) == 1
    assert choose([0.9, 0.5, 0.6]) == 0  # training brought nothing
    assert choose([0.5, 0.9, 0.8], keep="last") == 2


def test_where_nothing_judges_the_last_is_kept() -> None:
    assert choose([None, None, None]) == 2


def test_of_equal_states_the_later_is_the_best() -> None:
    kept = Kept("best")
    for epoch in range(3):
        kept.add(make_state(epoch, 0.5))
    assert kept.best_epoch == 2


def test_after_a_failure_the_best_counts() -> None:
    kept = Kept("last")
    for epoch, value in enumerate([0.5, 0.9, 0.3]):
        kept.add(make_state(epoch, value))
    kept.forget_last()
    assert kept.choose().epoch == 1


def test_state_goes_on() -> None:
    kept, again = Kept("best"), Kept("best")
    for epoch, value in enumerate([0.5, 0.9, 0.3]):
        kept.add(make_state(epoch, value))
    again.load_state(kept.state())
    assert again.choose() == kept.choose()
    assert again.best_epoch == 1
    again.add(make_state(3, 0.95))
    assert again.choose().epoch == 3


def test_a_loss_is_better_when_it_is_lower() -> None:
    low, high = Judgement("loss", 0.1, -0.1, 0.05), Judgement("loss", 0.2, -0.2, 0.01)
    assert low.is_surely_better_than(high)
    assert not high.is_surely_better_than(low)
    assert not Judgement("loss", 0.16, -0.16, 0.05).is_surely_better_than(high)
