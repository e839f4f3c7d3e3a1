"""Channels that `prune.structured` leaves: whole units, one of each group, to a multiple; null where scores decide."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.facts import ChannelFacts
from app.contracts.planned_channels import RoundTo, planned_channels
from app.contracts.preflight import LayerPlan, find_idle_step, find_unplaced_names, plan_recipe
from app.contracts.recipe.notation import parse_recipe
from app.contracts.recipe.prune_structured import PruneStructured
from worker.engine.graph.channels import Group
from worker.engine.pruning.choice import Choice, plan_units
from worker.engine.pruning.selection import multiple_of

Make = Callable[..., Any]
METHOD = "prune.structured"


@pytest.mark.parametrize(
    ("facts", "share", "round_to", "left"),
    [
        ({"total": 64, "units": 64}, 0.5, 1, (32, 32)),
        ({"total": 64, "units": 64}, 0.3, 1, (45, 45)),
        ({"total": 100, "units": 100}, 0.29, 1, (71, 71)),
        ({"total": 64, "units": 64}, 0.3, 8, (48, 48)),
        ({"total": 64, "units": 64}, 0.9999, 1, (1, 1)),
        ({"total": 192, "units": 6, "per_unit": 32, "kind": "head"}, 0.4, 1, (4, 128)),
        ({"total": 192, "units": 6, "per_unit": 32, "kind": "head"}, 0.5, 48, (3, 96)),
        ({"total": 20, "units": 16}, 0.5, 1, (8, 12)),
        ({"total": 20, "units": 16}, 0.99, 1, (1, 5)),
        ({"total": 30, "units": 24, "groups": [16, 8]}, 0.99, 1, (2, 8)),
        ({"total": 10, "units": 10}, 0.0, 8, (10, 10)),
        ({"total": 10, "units": 0}, 0.5, 1, (0, 10)),
    ],
)
def test_what_is_left(facts: dict[str, object], share: float, round_to: int, left: tuple[int, int]) -> None:
    assert planned_channels(ChannelFacts.model_validate(facts), share, round_to) == left


@given(
    units=st.integers(1, 300),
    per_unit=st.integers(1, 8),
    share=st.floats(0.01, 0.99),
    round_to=st.integers(1, 16) | st.just("auto"),
    op=st.sampled_from(["Conv", "Gemm"]),
)
def test_the_engine_leaves_as_many(units: int, per_unit: int, share: float, round_to: RoundTo, op: str) -> None:
    facts = ChannelFacts(total=units * per_unit, units=units, per_unit=per_unit)
    scores = np.arange(units, dtype=np.float64)
    group = Group(np.arange(units), members=[], layers=["a"], width=per_unit, kind="channel")
    step = PruneStructured(amount=share, round_to=round_to)
    left = units - len(
        plan_units(Choice([group], [None], [multiple_of(group, {"a": op}, round_to)], scores), step).units
    )
    assert planned_channels(facts, share, round_to, is_convolution=op == "Conv") == (left, left * per_unit)


@pytest.fixture
def plan(make_facts: Make, make_layer: Make) -> Callable[[str], list[LayerPlan]]:
    """The plan of a recipe's first step for a residual pair, heads, and a layer that makes the output."""
    facts = make_facts(
        **{
            "res.a": make_layer(METHOD, total=8, units=8, tied_to=["res.b"]),
            "res.b": make_layer(METHOD, total=8, units=8, tied_to=["res.a"]),
            "attn": make_layer(METHOD, total=12, units=4, per_unit=3, kind="head"),
            "head": make_layer(METHOD, "tied to the output", total=10, units=0),
        }
    )
    return lambda recipe: plan_recipe(parse_recipe(recipe), facts)[0].layers


def left(layers: list[LayerPlan]) -> list[tuple[int | None, int | None] | None]:
    return [(each.planned.units_left, each.planned.channels_left) if each.planned else None for each in layers]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("amount=0.5", [(4, 4), (4, 4), (2, 6), None]),
        ("amount=0.5,round_to=6", [(6, 6), (6, 6), (2, 6), None]),
        ("amount=0.5,scope=global", [(None, None)] * 3 + [None]),
        ("amount=0.5,allocate=sensitivity", [(None, None)] * 3 + [None]),
        ("target.macs=0.5", [(None, None)] * 3 + [None]),
        ('amount=0.5,scope=global,ratios={"attn":0.25}', [(None, None)] * 2 + [(3, 9), None]),
        ('amount=0.5,ratios={"res.a":0.25,"res.*":0.75}', [(6, 6), (6, 6), (2, 6), None]),
        ('amount=0.5,ratios={"res.a":0.25}', [(6, 6), (6, 6), (2, 6), None]),
        ('amount=0.5,ratios={"res.a":0}', [None, None, (2, 6), None]),
        ('ratios={"res.*":0.75}', [(2, 2), (2, 2), None, None]),
        ("amount=0.5,exclude=attn", [(4, 4), (4, 4), None, None]),
        ("amount=0.5,exclude=res.a", [None, None, (2, 6), None]),
        ('ratios={"*":0.95},scope=global', [(1, 1), (1, 1), (1, 3), None]),
    ],
)
def test_what_each_layer_keeps(
    plan: Callable[[str], list[LayerPlan]], options: str, expected: list[tuple[int | None, int | None] | None]
) -> None:
    assert left(plan(f"{METHOD}:{options}")) == expected


def test_what_is_tied_to_a_layer_left_out_stays(plan: Callable[[str], list[LayerPlan]]) -> None:
    first, second, *_ = plan(f"{METHOD}:amount=0.5,exclude=res.a")
    assert (first.applies, first.why) == (False, "left out by the step")
    assert (second.applies, second.why) == (
        False,
        "its channels go with those of 'res.a', which the step leaves out",
    )


def test_which_of_its_groups_is_tied_to_what_is_not_known(make_facts: Make, make_layer: Make) -> None:
    """A layer whose channels go two ways, one of them tied to a layer that is left out, or asked for another share."""
    both = make_layer(METHOD, total=16, units=16, groups=[8, 8], tied_to=["b"])
    facts = make_facts(a=both, b=make_layer(METHOD, total=8, units=8, tied_to=["a"]))
    for options, expected in (
        ("amount=0.5", (8, 8)),
        ("amount=0.5,exclude=b", (None, None)),
        ('amount=0.5,ratios={"b":0.25}', (None, None)),
    ):
        [step] = plan_recipe(parse_recipe(f"{METHOD}:{options}"), facts)
        assert left(step.layers)[0] == expected


def test_channels_are_shown_where_nothing_can_go(plan: Callable[[str], list[LayerPlan]]) -> None:
    *_, head = plan(f"{METHOD}:amount=0.5")
    assert (head.applies, head.why) == (False, "tied to the output")
    assert head.channels
    assert str(head.channels) == "none"


def test_notes_say_what_is_known_later(make_facts: Make) -> None:
    sure, compared = plan_recipe(parse_recipe(f"{METHOD}:amount=0.5 + {METHOD}:amount=0.5,scope=global"), make_facts())
    assert compared.notes[:-1] == sure.notes
    assert "chosen by what is measured" in compared.notes[-1]


def test_a_share_for_a_layer_that_is_not_there_is_placed(make_facts: Make, make_layer: Make) -> None:
    facts = make_facts(**{"net/conv": make_layer(METHOD, total=8, units=8)})
    recipe = parse_recipe(METHOD + ':ratios={"net/*":0.5,"net/fc~1":0.5}')
    assert [each.pointer for each in find_unplaced_names(recipe, facts)] == ["/recipe/0/ratios/net~1fc~01"]


def test_nothing_to_prune_is_found(make_facts: Make, make_layer: Make) -> None:
    facts = make_facts(head=make_layer(METHOD, "tied to the output", total=10, units=0))
    idle = find_idle_step(plan_recipe(parse_recipe(f"{METHOD}:amount=0.5"), facts))
    assert idle
    assert "tied to the output" in idle.message
