"""Keeping a budget where predictions err: the outcome is what was measured, never what was predicted."""

from dataclasses import dataclass

import numpy as np
import pytest

from worker.engine.quantization.allocation import Choice, Table
from worker.engine.quantization.budget import MOST_MEASURED, Goal, pursue


@dataclass(frozen=True)
class Told:
    """What a made-up measurement says."""

    choice: tuple[int, ...]
    cost: float
    loss: float


def goal(limit: float, fixed: float = 0.0) -> Goal[Told]:
    generator = np.random.default_rng(0)
    costs = np.sort(generator.uniform(1, 10, (12, 3)), axis=1)
    losses = -np.sort(-(10 ** generator.uniform(-6, -1, (12, 3))), axis=1)
    return Goal(limit, fixed, Table(losses, costs), lambda each: each.cost, lambda each: each.loss)


class Bench:
    """Measures costs that are `factor` times and `more` above what is predicted."""

    def __init__(self, wanted: Goal[Told], factor: float, more: float = 0.0) -> None:
        self.goal, self.factor, self.more = wanted, factor, more
        self.measured: list[Told] = []

    def measure(self, choice: Choice) -> Told:
        cost = self.goal.predict(choice) * self.factor + self.more
        self.measured.append(Told(tuple(choice.tolist()), cost, self.goal.table.loss(choice)))
        return self.measured[-1]


@pytest.mark.parametrize(
    ("factor", "more"), [(1.0, 0.0), (1.3, 0.0), (0.7, 0.0), (1.0, 8.0), (1.5, -15.0), (0.5, 20.0)]
)
@pytest.mark.parametrize("limit", [40.0, 60.0, 80.0])
def test_the_real_limit_is_kept_and_used(limit: float, factor: float, more: float) -> None:
    wanted = goal(limit)
    bench = Bench(wanted, factor, more)
    found = pursue(wanted, "milp", bench.measure, [])
    best = wanted.table.loss(wanted.choose((limit - more) / factor, "milp"))
    assert len(bench.measured) <= MOST_MEASURED
    if wanted.is_met(bench.measure(wanted.table.cheapest)):
        assert found.cost <= limit
        assert found.loss <= max(3 * best, best + 1e-6)
    else:
        assert found.cost == min(each.cost for each in bench.measured)


def test_a_right_prediction_is_measured_once() -> None:
    wanted = goal(60.0)
    bench = Bench(wanted, 1.0)
    assert pursue(wanted, "milp", bench.measure, []).loss == wanted.table.loss(wanted.choose(60.0, "milp"))
    assert len(bench.measured) == 1


def test_what_is_known_is_not_measured_and_may_win() -> None:
    wanted = goal(60.0)
    bench = Bench(wanted, 1.0)
    known = Told((9,) * 12, 59.0, 0.0)
    assert pursue(wanted, "milp", bench.measure, [known]) is known
    picked = bench.measured.pop()
    assert pursue(wanted, "milp", bench.measure, [picked]) is picked
    assert not bench.measured


def test_out_of_reach_is_the_cheapest() -> None:
    wanted = goal(5.0)
    found = pursue(wanted, "greedy", Bench(wanted, 1.0).measure, [])
    assert found.choice == tuple(wanted.table.cheapest.tolist())


def test_where_nothing_can_be_made_of_a_choice_what_is_known_remains() -> None:
    wanted = goal(60.0)
    known = Told((0,) * 12, 70.0, 1.0)
    assert pursue(wanted, "milp", lambda _: None, [known]) is known
