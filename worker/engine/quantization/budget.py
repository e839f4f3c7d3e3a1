"""Keeps a budget for real: chooses by prediction, has the choice measured, corrects the prediction, chooses again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Generic, Protocol, TypeVar

from worker.engine.quantization.allocation import Choice, Solver, Table, allocate

MOST_MEASURED, _MOST_SOLVED = 5, 15
_CLOSE = 1.002
"""Between what met the budget and what missed it, a ratio not worth looking into."""
_LEAST_COST = 1e-30


class Outcome(Protocol):
    """What was measured of a choice."""

    @property
    def choice(self) -> tuple[int, ...]:
        """The index of each unit's option."""


OutcomeT = TypeVar("OutcomeT", bound=Outcome)


@dataclass(frozen=True)
class Goal(Generic[OutcomeT]):
    """Least loss at a cost of at most `limit`, above 0.

    Costs are predicted as `fixed` and those of `table`, and read from an outcome by `cost`; so is the loss.
    """

    limit: float
    fixed: float
    table: Table
    cost: Callable[[OutcomeT], float]
    loss: Callable[[OutcomeT], float]

    def is_met(self, outcome: OutcomeT) -> bool:
        """Whether it stays within the limit."""
        return self.cost(outcome) <= self.limit

    def choose(self, aim: float, solver: Solver) -> Choice:
        """The best choice by prediction at a cost of at most `aim`, or the cheapest where that is too little."""
        choice = allocate(self.table, aim - self.fixed, solver)
        return self.table.cheapest if choice is None else choice

    def predict(self, choice: Choice) -> float:
        """The cost of a choice."""
        return self.fixed + self.table.cost(choice)


def pursue(
    goal: Goal[OutcomeT], solver: Solver, measure: Callable[[Choice], OutcomeT | None], known: Sequence[OutcomeT]
) -> OutcomeT:
    """Of what was measured, `known` among it, the best that meets the goal; else what comes nearest.

    `measure` gives None for a choice of which nothing can be made.
    """
    tried: dict[tuple[int, ...], OutcomeT | None] = {each.choice: each for each in known}
    bracket, aim, left = _Bracket(), goal.limit, MOST_MEASURED
    for _ in range(_MOST_SOLVED):
        choice = goal.choose(aim, solver)
        key = tuple(choice.tolist())
        if key not in tried:
            if not left:
                break
            tried[key], left = measure(choice), left - 1
        outcome, predicted = tried[key], goal.predict(choice)
        if outcome is None or goal.is_met(outcome):
            bracket.met = max(bracket.met, aim)
        elif predicted <= goal.predict(goal.table.cheapest):
            break
        else:
            bracket.missed = min(bracket.missed, predicted)
        cost = goal.limit if outcome is None else max(goal.cost(outcome), _LEAST_COST)
        aim = bracket.between(predicted * goal.limit / cost)
        if aim <= bracket.met * _CLOSE:
            break
    return _best(goal, [each for each in tried.values() if each is not None])


@dataclass
class _Bracket:
    """Aims: the highest whose choice met the goal for real, and the lowest whose choice missed it."""

    met: float = 0.0
    missed: float = inf

    def between(self, aim: float) -> float:
        """`aim`, or the middle where the bracket tells that it leads nowhere new."""
        if aim >= self.missed or (aim <= self.met and self.missed < inf):
            return sqrt(self.met * self.missed)
        return aim


def _best(goal: Goal[OutcomeT], outcomes: Sequence[OutcomeT]) -> OutcomeT:
    meeting = [each for each in outcomes if goal.is_met(each)]
    return min(meeting, key=goal.loss) if meeting else min(outcomes, key=goal.cost)
