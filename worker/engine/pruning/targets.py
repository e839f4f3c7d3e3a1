"""How many of a plan's blocks go until a target is met. What is measured is a ratio of the graph to the one before."""

from collections.abc import Callable

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups
from worker.engine.graph.cost import count_weights, macs
from worker.engine.measure.race import Race
from worker.engine.pruning.choice import Plan
from worker.engine.samples import Samples

Measure = Callable[[Graph], float]
TOLERANCE = 0.02
_FILLED = 64
"""Blocks tried one by one where the next in order is too large a step."""
_RACES = 9


def measure_of(name: str, graph: Graph, samples: Samples) -> Measure:
    """Measures what a target names, over that of `graph`, before any pruning. Raises SlimlineError MACS_UNKNOWN."""
    if name == "parameters":
        parameters = count_weights(graph).count
        return lambda pruned: count_weights(pruned).count / parameters
    if name == "latency":
        return Race(graph, samples.first()).ratio
    before = macs(graph)
    if not before:
        raise SlimlineError(
            "MACS_UNKNOWN",
            "the multiply-accumulates of this model cannot be counted: sizes depend on its input",
            hint="Give a target of `parameters` or `latency`, or an `amount`.",
        )
    return lambda pruned: (macs(pruned) or before) / before


def reach(groups: Groups, plan: Plan, wanted: float, measure: Measure, *, is_exact: bool) -> list[int]:
    """The units that go so that the measure comes nearest to `wanted`.

    It falls along the plan; `is_exact`: without noise, so that single blocks can be tried out in the end. Raises
    SlimlineError TARGET_OUT_OF_REACH, with how far it goes.
    """
    least = _least(groups, plan, wanted, measure)
    low, ratios = _search(groups, plan, wanted, measure, least, is_exact=is_exact)
    nearest = min(ratios, key=lambda count: abs(ratios[count] - wanted))
    if not is_exact or abs(ratios[nearest] - wanted) <= TOLERANCE * wanted:
        return plan.first(nearest)
    return _fill(groups, plan, low, wanted, measure)


def approach(groups: Groups, plan: Plan, wanted: float, final: float, measure: Measure, *, is_exact: bool) -> list[int]:
    """As many units as may go while the measure stays above `wanted`, on the way to `final`.

    Whoever reaches `final` later finds what they would have found without. Raises as `reach`, of `final`.
    """
    least = _least(groups, plan, final, measure)
    low, _ = _search(groups, plan, wanted, measure, least, is_exact=is_exact)
    return plan.first(low)


def _least(groups: Groups, plan: Plan, wanted: float, measure: Measure) -> float:
    """What is left with all that may go removed. Raises SlimlineError TARGET_OUT_OF_REACH."""
    least = measure(groups.remove(plan.first(len(plan.blocks))))
    if least > wanted * (1 + TOLERANCE):
        raise SlimlineError(
            "TARGET_OUT_OF_REACH",
            f"with all that may go removed, {least:.3f} is left, and {wanted:.3f} was asked for",
            hint="Ask for more to be left, or widen `include`.",
        )
    return least


def _search(
    groups: Groups, plan: Plan, wanted: float, measure: Measure, least: float, *, is_exact: bool
) -> tuple[int, dict[int, float]]:
    """The most blocks, as far as looked, that leave more than `wanted`; and what was measured, by blocks gone."""
    low, high = 0, len(plan.blocks)
    ratios = {low: measure(groups.graph), high: least}
    for _ in range(len(plan.blocks).bit_length() if is_exact else _RACES):
        middle = (low + high) // 2
        if middle == low:
            break
        ratios[middle] = measure(groups.remove(plan.first(middle)))
        low, high = (middle, high) if ratios[middle] > wanted else (low, middle)
    return low, ratios


def _fill(groups: Groups, plan: Plan, low: int, wanted: float, measure: Measure) -> list[int]:
    """The first `low` blocks and later ones that fit: the next in order is too large."""
    taken, nearest = plan.first(low), plan.first(low)
    distance = abs(measure(groups.remove(taken)) - wanted)
    closed: set[int] = set()
    for block in plan.blocks[low : low + _FILLED]:
        if block.group in closed:
            continue
        tried = [*taken, *map(int, block.units)]
        ratio = measure(groups.remove(tried))
        if abs(ratio - wanted) < distance:
            nearest, distance = tried, abs(ratio - wanted)
        if ratio >= wanted:
            taken = tried
        else:
            closed.add(block.group)
    return nearest
