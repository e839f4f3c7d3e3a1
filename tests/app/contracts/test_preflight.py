"""What a recipe would do, said from the facts of a checked model: what is certain, and null where it is not."""

from collections.abc import Callable
from typing import Any

import pytest

from app.contracts.facts import ModelFacts
from app.contracts.preflight import LEFT_OUT, StepPlan, find_idle_step, find_unplaced_names, plan_recipe
from app.contracts.recipe.notation import parse_recipe, validate_recipe
from worker.engine.methods import method

Make = Callable[..., Any]


def plan(recipe: str, facts: ModelFacts) -> list[StepPlan]:
    return plan_recipe(parse_recipe(recipe), facts)


def test_a_layer_that_is_left_out_is_told_as_a_job_tells_it(make_facts: Make, make_layer: Make) -> None:
    assert LEFT_OUT == method.LEFT_OUT
    facts = make_facts(a=make_layer("prune.magnitude"), b=make_layer("prune.magnitude", "Gather is not pruned"))
    [step] = plan("prune.magnitude:amount=0.25,exclude=a", facts)
    assert [(layer.layer, layer.applies, layer.why, layer.planned) for layer in step.layers] == [
        ("a", False, LEFT_OUT, None),
        ("b", False, "Gather is not pruned", None),
    ]


@pytest.mark.parametrize(
    ("recipe", "planned"),
    [
        ("prune.magnitude:amount=0.25", {"sparsity": 0.25}),
        ("prune.magnitude:amount=0.25,scope=global", {}),
        ("prune.nm", {"sparsity": 0.5}),
        ("prune.nm:n=1", {"sparsity": 0.75}),
        ("quantize.static", {"bits": 8, "activation_bits": 8}),
        ("quantize.static:weights.bits=4,activations.bits=16", {"bits": 4, "activation_bits": 16}),
        ("quantize.dynamic", {"bits": 8}),
        ("quantize.weights:bits=4", {"bits": 4}),
        ("quantize.float16", {"bits": 16}),
        ("quantize.bfloat16", {"bits": 16}),
        ("quantize.mixed:budget.size_ratio=0.3", {}),
    ],
)
def test_what_the_options_say_is_planned(
    make_facts: Make, make_layer: Make, recipe: str, planned: dict[str, object]
) -> None:
    [step] = plan(recipe, make_facts(a=make_layer(recipe.partition(":")[0])))
    assert step.layers[0].applies is True
    assert step.layers[0].planned is not None
    assert step.layers[0].planned.model_dump(exclude_none=True) == planned
    assert step.notes or planned


def test_a_method_that_was_not_there_when_the_model_was_checked(make_facts: Make, make_layer: Make) -> None:
    [step] = plan("quantize.float16", make_facts(a=make_layer("quantize.static")))
    assert step.layers[0].applies is None
    assert "upload it again" in str(step.layers[0].why)
    assert step.layers[0].planned is None


def test_an_option_may_change_what_was_found_with_default_options(make_facts: Make, make_layer: Make) -> None:
    facts = make_facts(a=make_layer("quantize.dynamic", "slow; set convolutions=true to do it all the same"))
    [default], [asked] = plan("quantize.dynamic", facts), plan("quantize.dynamic:convolutions=true", facts)
    assert default.layers[0].applies is False
    assert asked.layers[0].applies is None


def test_groups_of_another_size_may_fit_other_layers(make_facts: Make, make_layer: Make) -> None:
    facts = make_facts(a=make_layer("prune.nm"), b=make_layer("prune.nm", "it sums over 6, no multiple of m=4"))
    [step] = plan("prune.nm:m=2,n=1", facts)
    assert [layer.applies for layer in step.layers] == [None, None]


def test_every_name_that_no_layer_has_is_placed(make_facts: Make, make_layer: Make) -> None:
    facts = make_facts(conv1=make_layer("prune.magnitude"))
    recipe = parse_recipe('prune.magnitude:amount=0.5,include=["conv*","cnov1"] + quantize.float16:exclude=fc')
    unplaced = find_unplaced_names(recipe, facts)
    assert [each.pointer for each in unplaced] == ["/recipe/0/include/1", "/recipe/1/exclude/0"]
    assert unplaced[0].message == "no layer is called 'cnov1'; this model has conv1"


@pytest.mark.parametrize(
    ("recipe", "index"),
    [
        ("prune.magnitude:amount=0.5", None),
        ("prune.magnitude:amount=0.5,include=b", 0),
        ("quantize.float16 + prune.magnitude:amount=0.5,exclude=a", 1),
        ("quantize.static", None),
    ],
)
def test_pruning_with_nothing_to_prune_is_found(
    make_facts: Make, make_layer: Make, recipe: str, index: int | None
) -> None:
    """Of quantization that is not certain: its options may reach other layers."""
    facts = make_facts(a=make_layer("prune.magnitude"), b=make_layer("prune.magnitude", "Gather is not pruned"))
    idle = find_idle_step(plan(recipe, facts))
    assert (idle.step if idle else None) == index
    assert idle is None or "Gather is not pruned" in idle.message


def test_a_model_without_layers_has_nothing_to_prune(make_facts: Make) -> None:
    assert find_idle_step(plan("prune.magnitude:amount=0.5", make_facts())) is not None


def test_weights_that_a_layer_left_out_reads_too(make_facts: Make, make_layer: Make) -> None:
    shared = {**make_layer("prune.magnitude"), "weights": ["embedding"]}
    facts = make_facts(table=shared, head=shared, other=make_layer("prune.magnitude"))
    [step] = plan("prune.magnitude:amount=0.5,exclude=table", facts)
    assert [layer.applies for layer in step.layers] == [False, None, True]
    assert step.layers[1].why == "table, which the step leaves alone, reads the same weights"


def test_shares_by_name(make_facts: Make, make_layer: Make) -> None:
    facts = make_facts(**{name: make_layer("prune.magnitude") for name in ("a.1", "a.2", "b")})
    shares = '{"a.1":0,"a.*":0.25}'
    for scope, others in (("layer", 0.5), ("global", None)):
        [step] = plan(f"prune.magnitude:amount=0.5,scope={scope},ratios={shares}", facts)
        assert step.layers[0].why == "the step asks nothing of it"
        assert [layer.planned.sparsity for layer in step.layers[1:] if layer.planned] == [0.25, others]


def test_nothing_is_said_of_another_model_that_takes_this_ones_place(make_facts: Make, make_layer: Make) -> None:
    facts = make_facts(a=make_layer("prune.magnitude", "Gather is not pruned"))
    train = {"method": "train", "include": ["b"], "distill": {"student": {"model": "mdl_" + "0" * 26}}}
    prune = {"method": "prune.magnitude", "amount": 0.5, "include": ["c"]}
    recipe = validate_recipe([{"method": "quantize.float16"}, train, prune])
    plans = plan_recipe(recipe, facts)
    assert find_unplaced_names(recipe, facts) == []
    assert find_idle_step(plans) is None
    assert [plan.layers[0].applies for plan in plans[1:]] == [None, None]
    assert plans[2].layers[0].why == "step 2 goes on with another model: its layers are known when the step runs"
    assert [each.pointer for each in find_unplaced_names(validate_recipe([prune]), facts)] == ["/recipe/0/include/0"]
