"""What a recipe would do to a checked model, step by step and layer by layer. Nothing is run or estimated here."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, Field

from app.contracts.facts import ChannelFacts, LayerFacts, ModelFacts
from app.contracts.layer_names import is_chosen, matches_none
from app.contracts.planned_change import PlannedChange, foresee, remark, why_spared, why_unsure
from app.contracts.recipe import Step
from app.contracts.recipe.channel_pruning import ChannelPruning
from app.contracts.recipe.prune_magnitude import PruneMagnitude
from app.contracts.references import find_replacement

LEFT_OUT = "left out by the step"
_PRUNING = frozenset({"prune.magnitude", "prune.soft", "prune.structured"})
"""Methods that no option makes work on a layer that they do not work on by default."""
_SHOWN = 8


class LayerPlan(BaseModel):
    """What one step would do to one layer, or why it would leave it alone."""

    layer: str
    op: str
    applies: bool | None = Field(description="Whether the step works on it; null where only running it tells")
    why: str | None = Field(None, description="Why it does not, or why that is not known")
    channels: ChannelFacts | None = Field(None, description="What can go of it, for `prune.structured`")
    planned: PlannedChange | None = Field(None, description="What becomes of it; null where it stays as it is")


class StepPlan(BaseModel):
    """What one step would do."""

    step: int = Field(description="Index of the recipe step, from 0")
    method: str
    layers: list[LayerPlan]
    notes: list[str] = Field(description="What is known only when the step runs")


class UnplacedName(NamedTuple):
    """A name or glob that no layer has. `pointer` is its place in the job (RFC 6901)."""

    pointer: str
    message: str


class IdleStep(NamedTuple):
    """A pruning step that none of the layers it chooses can be pruned by. `step` counts from 0."""

    step: int
    message: str


def plan_recipe(recipe: Sequence[Step], facts: ModelFacts) -> list[StepPlan]:
    """What each step would do to the model as it was checked: what earlier steps make of it is not known here."""
    own = find_replacement(recipe)
    plans = [_plan_step(index, step, facts.layers) for index, step in enumerate(recipe)]
    return plans[:own] + [_as_of_another_model(plan, own) for plan in plans[own:]]


def note_on(recipe: Sequence[Step]) -> list[str]:
    """What no preflight of this recipe can know, for people."""
    told = ["size, latency, memory and accuracy are not foreseen: they are measured when the job runs"]
    if len(recipe) > 1:
        told.append("every step is judged on the model as it was checked, not on what the steps before it make of it")
    return told


def find_unplaced_names(recipe: Sequence[Step], facts: ModelFacts) -> list[UnplacedName]:
    """Every name or glob in the steps' options that matches no layer of the model.

    Steps on another model, a student in place of this one, are passed over.
    """
    names = [layer.name for layer in facts.layers]
    known = f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}" or "none"
    return [
        UnplacedName(f"/recipe/{index}/{place}", f"no layer is called {pattern[:80]!r}; this model has {known}")
        for index, step in enumerate(recipe[: find_replacement(recipe)])
        for place, pattern in _patterns(step)
        if matches_none(pattern, names)
    ]


def find_idle_step(plans: Sequence[StepPlan]) -> IdleStep | None:
    """The first pruning step that surely has nothing to prune, which a job would be refused for when it runs."""
    for plan in plans:
        if plan.method in _PRUNING and all(layer.applies is False for layer in plan.layers):
            reasons = Counter(layer.why for layer in plan.layers if layer.why != LEFT_OUT)
            commonest = next((reason for reason, _ in reasons.most_common(1)), None) or "it chooses none"
            return IdleStep(plan.step, f"{plan.method} can work on no layer of this model that it chooses: {commonest}")
    return None


def _plan_step(index: int, step: Step, layers: Sequence[LayerFacts]) -> StepPlan:
    left_alone = {layer.name for layer in layers if not _is_asked_of(step, layer)}
    held = {weight: layer.name for layer in layers if layer.name in left_alone for weight in layer.weights}
    by_name = {layer.name: layer for layer in layers}
    plans = []
    for layer in layers:
        applies, why = _judge(step, layer, held)
        plans.append(
            LayerPlan(
                layer=layer.name,
                op=layer.op,
                applies=applies,
                why=why,
                channels=layer.channels if isinstance(step, ChannelPruning) else None,
                planned=foresee(step, layer, by_name) if applies else None,
            )
        )
    return StepPlan(step=index, method=step.method, layers=plans, notes=remark(step))


def _as_of_another_model(plan: StepPlan, replacing: int) -> StepPlan:
    why = f"step {replacing + 1} goes on with another model: its layers are known when the step runs"
    unknown = {"applies": None, "why": why, "channels": None, "planned": None}
    return plan.model_copy(update={"layers": [layer.model_copy(update=unknown) for layer in plan.layers]})


def _is_asked_of(step: Step, layer: LayerFacts) -> bool:
    return is_chosen(layer.name, step.include, step.exclude) and why_spared(step, layer) is None


def _judge(step: Step, layer: LayerFacts, held: Mapping[str, str]) -> tuple[bool | None, str | None]:
    """Whether the step works on a layer, and why not or why that is not known.

    `held` are the weights of layers that it leaves alone, with such a layer's name.
    """
    if not is_chosen(layer.name, step.include, step.exclude):
        return False, LEFT_OUT
    found = layer.methods.get(step.method)
    if found is None:
        return None, f"the model was checked before {step.method} was there: upload it again"
    if not found.applies:
        # Found with default options; a reason says which option would change it.
        is_changed = any(re.search(rf"\b{option}=", found.why or "") for option in step.model_fields_set)
        return (None, f"not with default options: {found.why}") if is_changed else (False, found.why)
    if reason := why_spared(step, layer):
        return False, reason
    if holder := next((held[weight] for weight in layer.weights if weight in held), None):
        return None, f"{holder}, which the step leaves alone, reads the same weights"
    unsure = why_unsure(step)
    return (None, unsure) if unsure else (True, None)


def _patterns(step: Step) -> Iterator[tuple[str, str]]:
    """Where in the step a layer is named, as the end of a JSON Pointer, and how."""
    for option, patterns in (("include", step.include), ("exclude", step.exclude)):
        yield from ((f"{option}/{position}", pattern) for position, pattern in enumerate(patterns))
    for glob in step.ratios if isinstance(step, PruneMagnitude | ChannelPruning) else ():
        yield f"ratios/{glob.replace('~', '~0').replace('/', '~1')}", glob
