"""Rounds of iterative pruning, by numbers: shares along curves, ladders that go on, records and notes joined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.events import LayerRecord
from app.contracts.recipe.prune_magnitude import PruneMagnitude
from app.contracts.recipe.prune_structured import PruneStructured
from worker.engine.graph.channels import Group
from worker.engine.pruning.choice import Choice, plan_units
from worker.engine.pruning.round_records import join_records, tell_rounds
from worker.engine.pruning.rounds import CurveName, Round, on_the_way


@pytest.mark.parametrize(
    ("curve", "shares"),
    [
        ("linear", [0.2, 0.4, 0.6, 0.8]),
        ("cubic", [0.8 * (1 - 0.75**3), 0.8 * (1 - 0.5**3), 0.8 * (1 - 0.25**3), 0.8]),
        ("exponential", [1 - 0.2**0.25, 1 - 0.2**0.5, 1 - 0.2**0.75, 0.8]),
    ],
)
def test_shares_along_the_curves(curve: CurveName, shares: list[float]) -> None:
    rounds = [Round(number, 4, curve) for number in range(1, 5)]
    assert [each.share(0.8) for each in rounds] == pytest.approx(shares)
    assert rounds[-1].share(0.8) == 0.8


def test_exponential_takes_the_same_share_of_what_is_left() -> None:
    left = [1.0, *(1 - Round(number, 5, "exponential").share(0.9) for number in range(1, 6))]
    assert np.divide(left[1:], left[:-1]) == pytest.approx([0.1**0.2] * 5)


def test_amount_and_ratios_go_along_and_a_target_goes_down_to_its_end() -> None:
    step = PruneMagnitude(amount=0.6, ratios={"head": 0, "conv": 0.4})
    halfway = on_the_way(step, Round(1, 2))
    assert halfway.amount == pytest.approx(0.3)
    assert halfway.ratios == pytest.approx({"head": 0, "conv": 0.2})
    assert on_the_way(step, Round(2, 2)) is step
    aimed = PruneStructured.model_validate({"target": {"macs": 0.4}, "ratios": {"conv": 0.4}})
    way = [on_the_way(aimed, Round(number, 3)) for number in (1, 2, 3)]
    assert [each.target.macs for each in way if each.target] == pytest.approx([0.8, 0.6, 0.4])
    assert all(each.ratios == aimed.ratios for each in way)


@given(
    units=st.lists(st.integers(2, 60), min_size=1, max_size=4),
    amount=st.floats(0.01, 0.99),
    round_to=st.sampled_from([1, 2, 4, 8]),
    curve=st.sampled_from(["linear", "cubic", "exponential"]),
    scope=st.sampled_from(["layer", "global"]),
)
def test_rounds_leave_as_many_as_one_shot(
    units: list[int], amount: float, round_to: int, curve: CurveName, scope: str
) -> None:
    """Of each group; with `scope: global` the channels of all together, as scores change between rounds."""
    step = PruneStructured.model_validate({"amount": amount, "round_to": round_to, "scope": scope})
    scores = np.random.default_rng(0).random(sum(units))
    once = _left(units, {}, scores, step, round_to)
    left, gone = units, dict[int, int]()
    for number in range(1, 4):
        asked = on_the_way(step, Round(number, 3, curve))
        left = _left(left, gone, scores, asked, round_to)
        gone = {place: size - left[place] for place, size in enumerate(units)}
    if scope == "layer":
        assert left == once
    else:
        assert sum(left) == sum(once) or round_to > 1
        assert sum(units) - sum(left) <= amount * sum(units) + 1e-6


def _left(
    units: list[int], gone: dict[int, int], scores: np.ndarray, step: PruneStructured, multiple: int
) -> list[int]:
    """How many units of each group stay."""
    starts = np.cumsum([0, *units])
    groups = [
        Group(np.arange(start, start + size), members=[], layers=["a"], width=1, kind="channel")
        for start, size in zip(starts, units, strict=False)
    ]
    choice = Choice(groups, [None] * len(units), [multiple] * len(units), scores, gone)
    going = plan_units(choice, step).units
    return [size - int(np.isin(group.units, going).sum()) for size, group in zip(units, groups, strict=True)]


def test_a_layer_has_one_record_with_its_first_shape_and_its_last() -> None:
    first, last = _record(shape_before=[8], shape_after=[6], done=True), _record(shape_before=[6], shape_after=[6])
    (joined,) = join_records([first], [last])
    assert (joined.done, joined.reason, joined.shape_before, joined.shape_after) == (True, None, [8], [6])
    (skipped,) = join_records([last], [last])
    assert (skipped.done, skipped.reason) == (False, "why")


def _record(*, shape_before: list[int], shape_after: list[int], done: bool = False) -> LayerRecord:
    return LayerRecord(
        step=0,
        method="m",
        layer="a",
        op="Conv",
        done=done,
        reason=None if done else "why",
        shape_before=shape_before,
        shape_after=shape_after,
    )


def test_what_every_round_tells_is_told_once() -> None:
    told = tell_rounds([["a", "left 0.7"], ["a", "left 0.5"]])
    assert told == ["round 1 of 2: left 0.7", "round 2 of 2: left 0.5", "a"]
