"""Advice from records: who stands out, and that every recipe advised is one that can be posted."""

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.advice import advise_job, advise_layers, find_worst, literal_glob
from app.contracts.events import LayerRecord
from app.contracts.recipe import Step
from app.contracts.recipe.notation import parse_recipe, validate_recipe

CALIBRATE = {"calibrate"}
SHARES = st.lists(st.floats(0, 1), max_size=12)


def record(layer: str, share: float | None = None, **facts: Any) -> LayerRecord:
    fields = {"step": 0, "method": "quantize.static", "op": "Conv", "done": True, **facts}
    return LayerRecord(layer=layer, error_share=share, **fields)


def records(*shares: float, step: int = 0) -> list[LayerRecord]:
    return [record(f"conv{index}", share, step=step) for index, share in enumerate(shares)]


def skipped(layer: str, reason: str) -> LayerRecord:
    return record(layer, done=False, reason=reason, op="LSTM")


@pytest.mark.parametrize(
    ("shares", "worst"),
    [
        ([], []),
        ([1.0], []),
        ([0.7, 0.3], []),
        ([0.9, 0.1], ["conv0"]),
        ([0.25, 0.25, 0.25, 0.25], []),
        ([0.05, 0.7, 0.05, 0.1, 0.1], ["conv1"]),
        ([0.02] * 20 + [0.25, 0.35], ["conv21", "conv20"]),
        ([0.09] + [0.91 / 99] * 99, []),
        ([0.0] * 5, []),
        ([0.2] * 5 + [0.0] * 30, ["conv0", "conv1", "conv2", "conv3"]),
    ],
)
def test_who_stands_out(shares: list[float], worst: list[str]) -> None:
    assert [each.layer for each in find_worst(records(*shares), 0)] == worst


def test_the_worst_layer_is_left_out_and_all_else_stays() -> None:
    recipe = parse_recipe(
        'prune.magnitude:amount=0.5 + quantize.static:samples=7,activations.symmetric=true,exclude=["head"]'
    )
    told = records(0.9, 0.02, 0.02, 0.02, 0.02, 0.02, step=1)
    static = {"method": "quantize.static", "samples": 7, "activations": {"symmetric": True}}
    fragment = {**static, "exclude": ["head", "conv0"]}
    advised = advise_layers(told, recipe)
    assert [each.advice for each in advised] == [[fragment], None, None, None, None, None]
    assert told[0].advice is None
    advice = advise_job(told, recipe, CALIBRATE)[0]
    assert advice.recipe == [{"method": "prune.magnitude", "amount": 0.5}, fragment]
    assert advice.layers == ["conv0"]
    assert advice.why == "conv0 makes 90% of the error of quantize.static; left out, it stays as before"


def test_the_worst_are_left_out_together() -> None:
    first = advise_job(records(*[0.02] * 15, 0.3, 0.4), parse_recipe("quantize.static"), CALIBRATE)[0]
    assert first.recipe == [{"method": "quantize.static", "exclude": ["conv16", "conv15"]}]
    assert first.why.startswith("conv16 and conv15 make 70% of the error")


def test_few_bits_are_answered_with_more() -> None:
    recipe = parse_recipe("quantize.static:weights.bits=4,samples=9")
    recipes = [each.recipe for each in advise_job(records(0.9, *[0.02] * 5), recipe, CALIBRATE)]
    assert recipes[0] == [{"method": "quantize.static", "weights": {"bits": 4}, "samples": 9, "exclude": ["conv0"]}]
    assert recipes[1] == [{"method": "quantize.static", "weights": {"bits": 8}, "samples": 9}]
    told = [each.model_copy(update={"method": "quantize.weights"}) for each in records(0.9, *[0.02] * 5)]
    advised = advise_job(told, parse_recipe("quantize.weights:bits=4"), set())
    assert [{"method": "quantize.weights", "bits": 8}] in [each.recipe for each in advised]


def test_repairs_held_back_are_advised() -> None:
    recipe = parse_recipe("quantize.static:samples=9,repairs=[]")
    recipes = [each.recipe for each in advise_job(records(0.9, *[0.02] * 5), recipe, CALIBRATE)]
    assert recipes[0] == [{"method": "quantize.static", "samples": 9, "repairs": [], "exclude": ["conv0"]}]
    assert recipes[1] == [{"method": "quantize.static", "samples": 9}]


@pytest.mark.parametrize(("recipe", "room"), [("quantize.static", 10 / 32), ("quantize.static:weights.bits=4", 6 / 32)])
def test_bits_by_layer_are_advised_with_a_little_more_room(recipe: str, room: float) -> None:
    advised = advise_job(records(0.9, *[0.02] * 5), parse_recipe(recipe), set())
    mixed = [{"method": "quantize.mixed", "budget": {"size_ratio": room}}]
    assert mixed in [each.recipe for each in advised]


def test_nothing_stands_out_nothing_is_advised() -> None:
    told = [*records(0.3, 0.3, 0.4), record("tail"), skipped("lstm", "left out by the step")]
    recipe = parse_recipe("quantize.static")
    assert advise_job(told, recipe, CALIBRATE) == []
    assert advise_layers(told, recipe) == told
    assert advise_job([], recipe, CALIBRATE) == []


def test_a_method_that_the_reason_names_is_advised() -> None:
    lstm = skipped("/lstm[0]", "static quantization does nothing for LSTM; quantize.dynamic does it for LSTM")
    recipe = parse_recipe("quantize.static:exclude=head")
    [advised, _] = advise_layers([lstm, record("fc")], recipe)
    assert advised.advice == [{"method": "quantize.dynamic", "include": ["/lstm[[]0]"]}]
    [advice] = advise_job([lstm, record("fc")], recipe, CALIBRATE)
    assert advice.recipe == [{"method": "quantize.dynamic", "exclude": ["head"]}]
    assert advice.why == "quantize.static skips /lstm[0]; quantize.dynamic works on it"
    assert advise_job([lstm, record("fc1"), record("fc2")], recipe, CALIBRATE) == []


def test_what_the_engine_advised_stays() -> None:
    own = [{"method": "quantize.float16"}]
    told = [record("conv0", 0.9, advice=own), *records(*[0.02] * 5)]
    assert advise_layers(told, parse_recipe("quantize.static"))[0].advice == own


def test_a_name_too_long_for_a_glob_is_not_advised() -> None:
    told = [record("[" * 200, 0.9), *records(*[0.02] * 5)]
    recipe = parse_recipe("quantize.static")
    assert advise_layers(told, recipe)[0].advice is None
    assert all("exclude" not in each.recipe[0] for each in advise_job(told, recipe, CALIBRATE))


@given(st.text("ab[]*?!-", max_size=8), st.text("ab[]*?!-", max_size=8))
def test_a_literal_glob_matches_its_layer_alone(name: str, other: str) -> None:
    assert fnmatchcase(name, literal_glob(name))
    assert name == other or not fnmatchcase(other, literal_glob(name))


@pytest.mark.parametrize("name", ["layer[0]", "a*", "a?b", "[!a]", "]", "/conv/Conv"])
def test_a_literal_glob_is_no_other_layers_name(name: str) -> None:
    others = ["layer0", "ab", "axb", "b", "[", "/conv/Conv_1"]
    assert not any(fnmatchcase(other, literal_glob(name)) for other in others)


@given(SHARES, st.sampled_from(["quantize.static", "quantize.dynamic + quantize.static", "quantize.weights:bits=4"]))
def test_every_recipe_advised_is_valid(shares: list[float], text: str) -> None:
    recipe: list[Step] = parse_recipe(text)
    told = [record(f"{i}*[{i}]", share, method=recipe[-1].method) for i, share in enumerate(shares)]
    told = [each.model_copy(update={"step": len(recipe) - 1}) for each in told]
    for advice in advise_job(told, recipe, CALIBRATE):
        assert validate_recipe(advice.recipe) != recipe
        assert advice.layers
    for each in advise_layers(told, recipe):
        assert each.advice is None or validate_recipe(each.advice)
