"""The string notation of recipes: what it means, and what a wrong one is told."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.failure import SlimlineError
from app.contracts.recipe import METHODS
from app.contracts.recipe.notation import parse_recipe, validate_recipe


def test_steps_options_and_nesting() -> None:
    first, second = parse_recipe("prune.magnitude:amount=5e-1,scope=global + quantize.static:weights.per_channel=false")
    assert (first.method, first.amount, first.scope) == ("prune.magnitude", 0.5, "global")
    assert second.method == "quantize.static"
    assert second.weights.per_channel is False
    assert second.weights.bits == 8


def test_a_plus_in_a_number_joins_no_steps() -> None:
    (step,) = parse_recipe("prune.magnitude:amount=0.05e+1")
    assert step.amount == 0.5


def test_lists_and_quoted_texts() -> None:
    (step,) = parse_recipe('quantize.dynamic:include=["a,b","c+d"],exclude=layer1.*')
    assert step.include == ("a,b", "c+d")
    assert step.exclude == ("layer1.*",)


def test_json_text_means_the_same() -> None:
    steps = [{"method": "prune.magnitude", "amount": 0.5}, {"method": "quantize.float16", "keep_io": False}]
    assert parse_recipe(json.dumps(steps)) == parse_recipe("prune.magnitude:amount=0.5+quantize.float16:keep_io=false")


def test_one_step_alone_is_a_recipe() -> None:
    assert validate_recipe({"method": "quantize.dynamic"}) == parse_recipe("quantize.dynamic")


@pytest.mark.parametrize(
    ("text", "code", "step", "words"),
    [
        ("", "RECIPE_EMPTY", None, ["no step"]),
        ("[]", "RECIPE_EMPTY", None, ["no step"]),
        ("no.such", "METHOD_UNKNOWN", 0, ["step 1", "no.such"]),
        ("quantize.static + ", "METHOD_UNKNOWN", 1, ["step 2"]),
        ("quantize.static:x", "RECIPE_SYNTAX", 0, ["step 1", "'x'"]),
        ("quantize.static:samples=1,samples=2", "RECIPE_SYNTAX", 0, ["samples", "twice"]),
        ("quantize.static:weights=1,weights.bits=8", "RECIPE_SYNTAX", 0, ["weights.bits", "twice"]),
        ("quantize.static:colour=1", "OPTION_INVALID", 0, ["colour", "calibrator, percentile"]),
        ("quantize.static:weights.colour=1", "OPTION_INVALID", 0, ["weights.colour", "bits, symmetric, per_channel"]),
        ("quantize.static:calibrator=best", "OPTION_INVALID", 0, ["calibrator", "'minmax', 'percentile'"]),
        ("prune.magnitude", "OPTION_INVALID", 0, ["amount", "required"]),
        ("quantize.dynamic + prune.magnitude:amount=2", "OPTION_INVALID", 1, ["step 2", "amount", "less than 1"]),
        ("[{]", "RECIPE_SYNTAX", None, ["not valid JSON"]),
        ("[1]", "OPTION_INVALID", 0, ["step 1", "mapping"]),
        ('[{"amount": 1}]', "METHOD_UNKNOWN", 0, ["no `method`"]),
    ],
)
def test_refusals_name_the_step_the_option_and_what_is_allowed(
    text: str, code: str, step: int | None, words: list[str]
) -> None:
    with pytest.raises(SlimlineError) as caught:
        parse_recipe(text)
    failure = caught.value.failure
    assert (failure.code, failure.step) == (code, step)
    assert all(word in failure.message for word in words), failure.message


def test_an_unknown_method_is_told_which_there_are() -> None:
    with pytest.raises(SlimlineError) as caught:
        parse_recipe("no.such")
    assert all(name in (caught.value.failure.hint or "") for name in METHODS)


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_a_refusal(text: str) -> None:
    with contextlib.suppress(SlimlineError):
        assert parse_recipe(text)


@given(amount=st.floats(0.001, 0.999), names=st.lists(st.text(min_size=1, max_size=8), max_size=3))
def test_what_is_written_comes_back(amount: float, names: list[str]) -> None:
    (step,) = parse_recipe(f"prune.magnitude:amount={amount!r},include={json.dumps(names)}")
    assert step.amount == amount
    assert list(step.include) == names
