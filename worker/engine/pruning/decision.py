"""Decides which units go: by share, by what each layer was measured to lose, or as many as a target takes."""

from collections.abc import Callable
from dataclasses import dataclass

from app.contracts.recipe.channel_pruning import ChannelPruning
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups
from worker.engine.graph.cost import count_weights, macs
from worker.engine.measure.comparison import Judge
from worker.engine.methods.method import StepContext
from worker.engine.pruning.choice import Choice, KeysOf, cut_all, plan_units
from worker.engine.pruning.sensitivity import scan
from worker.engine.pruning.targets import approach, measure_of, reach

_JUDGED_SAMPLES = 128
_SCANNED = 0.7
"""Share of the work after which sensitivities are known."""


@dataclass(frozen=True)
class Way:
    """Where a decision is one of several: the graph before the first, and what is asked in the end."""

    start: Graph
    end: ChannelPruning


def decide(
    groups: Groups, choice: Choice, step: ChannelPruning, context: StepContext, way: Way | None = None
) -> list[int]:
    """The units that go; `way` is where `step` leads.

    Targets are of the graph before the first decision. Raises SlimlineError TARGET_OUT_OF_REACH or MACS_UNKNOWN.
    """
    way = way or Way(groups.graph, step)
    measures = {name: measure_of(name, way.start, context.samples) for name in _target(step)}
    plan = plan_units(choice, step, _sensitivity(groups, choice, step, context))
    for name, wanted in _target(step).items():
        context.progress(_SCANNED, f"searching for {wanted:g} of the {name}")
        measure, is_exact, final = measures[name], name != "latency", _target(way.end)[name]
        if wanted > final:
            return approach(groups, plan, wanted, final, measure, is_exact=is_exact)
        return reach(groups, plan, wanted, measure, is_exact=is_exact)
    return plan.units


def _target(step: ChannelPruning) -> dict[str, float]:
    """The one number that is to be reached, by its name."""
    return {} if step.target is None else step.target.model_dump(exclude_none=True)


def _sensitivity(groups: Groups, choice: Choice, step: ChannelPruning, context: StepContext) -> KeysOf | None:
    if step.allocate != "sensitivity":
        return None
    judge = Judge(groups.graph, context.samples, min(step.samples, _JUDGED_SAMPLES))
    blocks = cut_all(choice, step)
    curves = scan(
        groups,
        blocks,
        judge,
        _saving(groups.graph, step),
        lambda share: context.progress(_SCANNED * share, "measuring what each layer loses"),
    )
    return lambda place, own: curves[place].keys(own)


def _saving(graph: Graph, step: ChannelPruning) -> Callable[[Graph], float]:
    """What is saved, 0 to 1, in the unit of the step's target; without one, parameters."""
    before = macs(graph)
    if before and step.target is not None and step.target.parameters is None:
        return lambda pruned: 1 - (macs(pruned) or before) / before
    parameters = count_weights(graph).count
    return lambda pruned: 1 - count_weights(pruned).count / parameters
