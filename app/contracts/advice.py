"""Advice: what to do about the layers that lose most, as recipes to post back. Records are read here, not made."""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.contracts.events import LayerRecord
from app.contracts.recipe import METHODS, Recipe, RecipeStep, Step
from app.contracts.recipe.step import find_missing_data

PlainStep = dict[str, Any]

_RECIPE: TypeAdapter[list[RecipeStep]] = TypeAdapter(Recipe)
_MOST = 3
"""Alternatives given for a job."""
_FEW = 4
"""Layers left out together: more are no longer what stands out."""
_LEAST_SHARE = 0.1
_FAR = 3
_BYTE = 8
_FLOAT_BITS = 32
_ROOM_BITS = 2
_METHOD_NAME = re.compile(r"[a-z]+\.[a-z0-9]+")
_GLOB = re.compile(r"([*?[])")


class Advice(BaseModel):
    """A recipe to try instead of the job's, and why."""

    why: str
    layers: list[str] = Field(description="The layers it is about, worst first")
    recipe: list[PlainStep] = Field(description="To post in place of the job's `recipe`")


def advise_layers(records: Sequence[LayerRecord], recipe: Sequence[Step]) -> list[LayerRecord]:
    """The records, with `advice` where a layer stands out or another method would not skip it."""
    worst = {id(record) for step in range(len(recipe)) for record in find_worst(records, step)}
    return [
        record.model_copy(update={"advice": _fragment(record, recipe[record.step], is_worst=id(record) in worst)})
        if record.advice is None
        else record
        for record in records
    ]


def advise_job(records: Sequence[LayerRecord], recipe: Sequence[Step], given: Collection[str]) -> list[Advice]:
    """At most three recipes worth trying, the steps that lose most first; none where nothing stands out.

    `given` are the roles of the job's data: a recipe that needs other data is not advised.
    """
    steps = {step: find_worst(records, step) for step in range(len(recipe))}
    losing = sorted((step for step in steps if steps[step]), key=lambda step: -_share(steps[step][:1]))
    found = [each for step in losing for each in _against_loss(records, recipe, step, steps[step])]
    found += [each for step in steps for each in _by_other_methods(records, recipe, step)]
    return list(islice((each for each in found if _can_run(each.recipe, given)), _MOST))


def find_worst(records: Sequence[LayerRecord], step: int) -> list[LayerRecord]:
    """The layers of a step with far more than their part of its error, worst first; never all of them.

    Far more: over 10 %, and over three times the part of one among n, or over half way from that to all of it.
    """
    judged = [each for each in records if each.step == step and each.done and each.error_share is not None]
    if not judged:
        return []
    part = 1 / len(judged)
    limit = max(_LEAST_SHARE, min(_FAR * part, (1 + part) / 2))
    return sorted((each for each in judged if _share([each]) > limit), key=lambda each: -_share([each]))[:_FEW]


def literal_glob(name: str) -> str:
    """The glob that matches the layer of this name and no other."""
    return _GLOB.sub(r"[\1]", name)


def _fragment(record: LayerRecord, step: Step, *, is_worst: bool) -> list[PlainStep] | None:
    """The steps to post instead of `step`, for this layer alone."""
    fragment = None
    if is_worst:
        fragment = [_leave_out(step, [record.layer])]
    elif other := _other_method(record):
        fragment = [{"method": other, "include": [literal_glob(record.layer)]}]
    return fragment if fragment and _is_valid(fragment) else None


def _against_loss(
    records: Sequence[LayerRecord], recipe: Sequence[Step], at: int, worst: Sequence[LayerRecord]
) -> Iterator[Advice]:
    """Leave the worst layers out, try all repairs, give weights more bits, choose bits by layer, train."""
    step, names, plain = recipe[at], [record.layer for record in worst], _plain(recipe[at])
    they_make = f"{_list(names)} {'makes' if len(names) == 1 else 'make'}"
    loss = f"{they_make} {_share(worst):.0%} of the error of {step.method}"

    def instead(why: str, *steps: PlainStep) -> Advice:
        return Advice(why=f"{loss}; {why}", layers=names, recipe=_replace(recipe, at, steps))

    if sum(each.step == at and each.done for each in records) > len(worst):
        yield instead(f"left out, {'it stays' if len(names) == 1 else 'they stay'} as before", _leave_out(step, names))
    if "repairs" in plain:
        yield instead("all repairs may be tried", {name: plain[name] for name in plain if name != "repairs"})
    if wider := _widen(step):
        yield instead("weights of 8 bits lose less, at more bytes", wider)
    if mixed := _mix(step):
        yield instead("quantize.mixed gives such layers more bits", mixed)
    if "train" in METHODS and step.method == "quantize.static":
        yield instead("training the quantized graph wins most of it back", plain, {"method": "train"})


def _by_other_methods(records: Sequence[LayerRecord], recipe: Sequence[Step], at: int) -> Iterator[Advice]:
    """Another method for a step that skips at least as many layers, naming that method, as it works on."""
    step, own = recipe[at], [record for record in records if record.step == at]
    for other in sorted({name for record in own if (name := _other_method(record))}):
        names = [record.layer for record in own if _other_method(record) == other]
        if len(names) >= sum(record.done for record in own):
            why = f"{step.method} skips {_list(names)}; {other} works on {'it' if len(names) == 1 else 'them'}"
            steps = [{"method": other, **_kept(step, "include", "exclude")}]
            yield Advice(why=why, layers=names, recipe=_replace(recipe, at, steps))


def _other_method(record: LayerRecord) -> str | None:
    """The method that the reason for skipping a layer names."""
    named = _METHOD_NAME.findall(record.reason or "")
    return next((name for name in named if name in METHODS and name != record.method), None)


def _plain(step: Step) -> PlainStep:
    """Method and options that are not the default."""
    return {"method": step.method, **step.model_dump(mode="json", exclude_defaults=True)}


def _kept(step: Step, *names: str) -> PlainStep:
    """Those of the step's options that are not the default."""
    return {name: value for name, value in _plain(step).items() if name in names}


def _leave_out(step: Step, names: Sequence[str]) -> PlainStep:
    return {**_plain(step), "exclude": [*step.exclude, *map(literal_glob, names)]}


def _widen(step: Step) -> PlainStep | None:
    """The step with weights of 8 bits, where it gives them fewer."""
    match plain := _plain(step):
        case {"weights": {"bits": int(bits), **others}} if bits < _BYTE:
            return {**plain, "weights": {**others, "bits": _BYTE}}
        case {"bits": int(bits)} if bits < _BYTE:
            return {**plain, "bits": _BYTE}
    return None


def _mix(step: Step) -> PlainStep | None:
    """quantize.mixed with a little more room for weights than the step takes, for layers that need more bits."""
    match step.model_dump():
        case {"weights": {"bits": int(bits)}} | {"bits": int(bits)}:
            budget = {"size_ratio": (bits + _ROOM_BITS) / _FLOAT_BITS}
            return {"method": "quantize.mixed", "budget": budget, **_kept(step, "samples", "include", "exclude")}
    return None


def _replace(recipe: Sequence[Step], at: int, steps: Sequence[PlainStep]) -> list[PlainStep]:
    return [*map(_plain, recipe[:at]), *steps, *map(_plain, recipe[at + 1 :])]


def _is_valid(steps: Sequence[PlainStep]) -> bool:
    """Whether it can be posted: a name may be too long for a glob, a method may have options that must be given."""
    try:
        _RECIPE.validate_python(steps)
    except ValidationError:
        return False
    return True


def _can_run(steps: Sequence[PlainStep], given: Collection[str]) -> bool:
    return _is_valid(steps) and find_missing_data(_RECIPE.validate_python(steps), given) is None


def _share(records: Sequence[LayerRecord]) -> float:
    return sum(record.error_share or 0.0 for record in records)


def _list(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
