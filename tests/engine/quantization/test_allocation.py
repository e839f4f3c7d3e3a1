"""The choice of bits as numbers: against every combination there is, on small random tables."""

from itertools import product

import numpy as np
import pytest

from worker.engine.quantization.allocation import Links, Table, allocate


def draw(seed: int, units: int = 6, options: int = 3) -> Table:
    """Losses over many orders of magnitude, that mostly fall as costs rise."""
    generator = np.random.default_rng(seed)
    losses = 10 ** generator.uniform(-8, 0, (units, options))
    costs = np.sort(generator.integers(10, 10_000, (units, options)), axis=1).astype(float)
    return Table(-np.sort(-losses, axis=1) if seed % 2 else losses, costs)


def combinations(table: Table) -> np.ndarray:
    """Every choice, [number, U]."""
    units, options = table.costs.shape
    return np.array(list(product(range(options), repeat=units)))


def least_loss(table: Table, limit: float) -> float:
    return min(table.loss(choice) for choice in combinations(table) if table.cost(choice) <= limit)


def limits(table: Table) -> list[float]:
    """From just enough to more than anyone needs; some are exactly the cost of a choice."""
    low, high = table.costs.min(axis=1).sum(), table.costs.max(axis=1).sum()
    some = table.cost(combinations(table)[len(combinations(table)) // 2])
    return [low, low + 1, some, (low + high) / 2, high, 2 * high]


@pytest.mark.parametrize("seed", range(12))
def test_integer_programming_finds_the_best_of_all_combinations(seed: int) -> None:
    table = draw(seed)
    for limit in limits(table):
        choice = allocate(table, limit, "milp")
        assert choice is not None
        assert table.cost(choice) <= limit
        assert table.loss(choice) == pytest.approx(least_loss(table, limit), rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_greed_stays_within_the_limit_and_cannot_be_bettered_by_one_change(seed: int) -> None:
    table = draw(seed)
    for limit in limits(table):
        choice = allocate(table, limit, "greedy")
        assert choice is not None
        assert table.cost(choice) <= limit
        for unit, option in np.ndindex(*table.costs.shape):
            other = choice.copy()
            other[unit] = option
            assert table.cost(other) > limit or table.loss(other) >= table.loss(choice)


@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_what_cannot_be_met_is_none(solver: str) -> None:
    table = draw(0)
    assert allocate(table, table.costs.min(axis=1).sum() - 1, solver) is None


@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_integers_are_chosen_where_they_are_faster(solver: str) -> None:
    """Options: float, integers. The second layer's integers are slower; the first one's cost more than the third's."""
    times = np.array([[5.0, 2.0], [1.0, 3.0], [5.0, 2.0]])
    noise = np.array([[0.0, 0.2], [0.0, 0.1], [0.0, 0.1]])
    for limit, expected in ((11, [0, 0, 0]), (8, [0, 0, 1]), (5, [1, 0, 1])):
        choice = allocate(Table(noise, times), limit, solver)
        assert choice is not None
        assert choice.tolist() == expected


@pytest.mark.parametrize("seed", range(12))
def test_with_links_it_is_the_best_of_all_combinations_too(seed: int) -> None:
    alone, generator = draw(seed), np.random.default_rng(seed)
    pairs = np.array([(unit, unit + 1) for unit in range(5)] + [(0, 3)])
    links = Links(pairs, generator.uniform(100, 5000, len(pairs)), np.array([False, False, True]))
    table = Table(alone.losses, alone.costs, links)
    for limit in limits(table):
        best, greedy = allocate(table, limit, "milp"), allocate(table, limit, "greedy")
        if best is None or greedy is None:
            assert limit < min(table.cost(choice) for choice in combinations(table))
            continue
        assert table.cost(greedy) <= limit
        assert table.cost(best) <= limit
        assert table.loss(best) == pytest.approx(least_loss(table, limit), rel=1e-9)


def test_a_conversion_that_costs_more_than_it_brings_is_not_made() -> None:
    """Three layers in a row, of which the middle one alone is faster in float."""
    times, noise = np.array([[5.0, 2.0], [2.0, 3.0], [5.0, 2.0]]), np.array([[0.0, 1.0]] * 3)
    pairs, is_float = np.array([[0, 1], [1, 2]]), np.array([True, False])
    for solver, cost, expected in (("milp", 0.2, [1, 0, 1]), ("milp", 1.0, [1, 1, 1]), ("greedy", 1.0, [1, 1, 1])):
        table = Table(noise, times, Links(pairs, np.full(2, cost), is_float))
        choice = allocate(table, 7, solver)
        assert choice is not None
        assert choice.tolist() == expected
        assert table.cost(choice) <= 7


def test_costs_may_be_negative() -> None:
    table = Table(np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[2.0, -3.0], [2.0, -3.0]]))
    choice = allocate(table, 0, "milp")
    assert choice is not None
    assert choice.tolist() == [1, 0]


def test_many_layers_take_no_time() -> None:
    table = draw(1, units=400)
    limit = (table.costs.min(axis=1).sum() + table.costs.max(axis=1).sum()) / 2
    best, greedy = allocate(table, limit, "milp"), allocate(table, limit, "greedy")
    assert best is not None
    assert greedy is not None
    assert table.cost(best) <= limit
    assert table.loss(best) <= table.loss(greedy)
