"""Chooses one option for each unit so that the sum of losses is least under a limit of costs. Numbers alone.

The problem is the multiple-choice knapsack (Sinha and Zoltners 1979), with costs of links between units on top. `U`
units, `C` options, `L` links. How HiGHS is asked for the best choice is in `integer_program`.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker.engine.quantization.integer_program import Part, Program, solve

Solver = Literal["milp", "greedy"]
Choice = NDArray[np.intp]
"""The index of each unit's option, [U]."""
Numbers = NDArray[np.float64]
_SCALED = 1e4
"""What sums are scaled to: HiGHS takes solutions within 1e-6 of each other as equal."""
_SHARES_OF_LIMIT = (1.0, 1 - 1e-5)
"""HiGHS may overstep a limit by 1e-6 of it; then it is asked again with a bit less."""


@dataclass(frozen=True)
class Links:
    """`pairs` of different units, [L, 2], and what each costs, [L], where just one has an option that `is_apart`, [C].

    No cost is negative.
    """

    pairs: NDArray[np.intp] = field(default_factory=lambda: np.zeros((0, 2), np.intp))
    costs: Numbers = field(default_factory=lambda: np.zeros(0))
    is_apart: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def cost(self, choice: Choice) -> float:
        """Of the links that are cut."""
        return float(self.costs[self._are_cut(choice)].sum()) if len(self.costs) else 0.0

    def prices(self, choice: Choice, options: int) -> Numbers:
        """What it costs more if one unit changes to another option, [U, C]."""
        if not len(self.costs):
            return np.zeros((len(choice), options))
        change = np.zeros(len(choice))
        for side in self.pairs.T:
            np.add.at(change, side, np.where(self._are_cut(choice), -self.costs, self.costs))
        is_change = self.is_apart[None, :] != self.is_apart[choice][:, None]
        prices: Numbers = is_change * change[:, None]
        return prices

    def _are_cut(self, choice: Choice) -> NDArray[np.bool_]:
        sides = self.is_apart[choice][self.pairs]
        are_cut: NDArray[np.bool_] = sides[:, 0] != sides[:, 1]
        return are_cut


@dataclass(frozen=True)
class Table:
    """`losses`, none negative, and `costs` of each unit's options, [U, C] both, and links between the units."""

    losses: Numbers
    costs: Numbers
    links: Links = field(default_factory=Links)

    def loss(self, choice: Choice) -> float:
        """The sum of losses."""
        return _total(self.losses, choice)

    def cost(self, choice: Choice) -> float:
        """The sum of costs."""
        return _total(self.costs, choice) + self.links.cost(choice)

    @cached_property
    def cheapest(self) -> Choice:
        """The options that cost least; without links of equal ones those that lose least."""
        is_cheapest = self.costs == self.costs.min(axis=1, keepdims=True)
        alone: Choice = np.where(is_cheapest, self.losses, np.inf).argmin(axis=1)
        if not len(self.links.costs):
            return alone
        costs = self.costs - self.costs.min(axis=1, keepdims=True)
        scale = _SCALED / max(costs.max(), self.links.costs.max(), np.finfo(float).tiny)
        options = Part(costs * scale, np.zeros_like(costs))
        pairs = Part(self.links.costs * scale, np.zeros_like(self.links.costs))
        found = solve(Program(options, pairs, np.ones(costs.shape, np.bool_), self.links.pairs, self.links.is_apart), 0)
        return min([alone, *([] if found is None else [found])], key=self.cost)


def allocate(table: Table, limit: float, solver: Solver) -> Choice | None:
    """The options whose costs sum up to at most `limit`; None where even the cheapest cost more."""
    if table.cost(table.cheapest) > limit:
        return None
    greedy = _by_greed(table, limit)
    return greedy if solver == "greedy" else _by_milp(table, limit, greedy)


def _by_greed(table: Table, limit: float) -> Choice:
    """From the cheapest options on, always the change that fits and saves most loss for its cost."""
    choice, units = table.cheapest.copy(), np.arange(len(table.costs))
    while True:
        saved = table.losses[units, choice][:, None] - table.losses
        price = table.costs - table.costs[units, choice][:, None] + table.links.prices(choice, table.costs.shape[1])
        fits = (saved > 0) & (price <= limit - table.cost(choice))
        if not fits.any():
            return choice
        rate = np.divide(saved, price, out=np.full_like(saved, np.inf), where=price > 0)
        unit, option = np.unravel_index(np.where(fits, rate, -1).argmax(), fits.shape)
        choice[unit] = option


def _by_milp(table: Table, limit: float, start: Choice) -> Choice:
    """The best choice, or `start` where no better one was found."""
    least = table.costs.min(axis=1, keepdims=True)
    room, bound = limit - least.sum(), table.loss(start)
    if bound <= 0 or room <= 0:
        return start
    shares = (table.costs - least) / room
    # An option that alone loses more than a known solution, or takes more than there is, is in no better one.
    is_possible = (table.losses <= bound) & (shares <= 1)
    options = Part(np.where(is_possible, table.losses, 0) / bound * _SCALED, np.where(is_possible, shares, 0))
    pairs = Part(np.zeros_like(table.links.costs), table.links.costs / room)
    program = Program(options, pairs, is_possible, table.links.pairs, table.links.is_apart)
    for share in _SHARES_OF_LIMIT:
        choice = solve(program, share)
        if choice is not None and table.cost(choice) <= limit:
            return choice if table.loss(choice) < bound else start
    return start


def _total(numbers: NDArray[np.float64], choice: Choice) -> float:
    return float(numbers[np.arange(len(numbers)), choice].sum())
