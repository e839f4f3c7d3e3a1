"""How much each unit of a graph matters, by the step's criterion. The maths is in `tensors/importance`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.contracts.failure import SlimlineError
from app.contracts.recipe.prune_structured import PruneStructured
from worker.engine.graph import Graph
from worker.engine.graph.channels import Group, Groups, Member
from worker.engine.methods.method import StepContext
from worker.engine.pruning.gradients import unit_taylor_scores
from worker.engine.quantization.calibration import Pass
from worker.engine.samples import Samples
from worker.engine.tensors import importance

Scores = NDArray[np.float64]
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_DEAD = 1e-6
"""Share of the largest score of what makes a unit below which it makes nothing."""
_MATRIX = 2
_BATCH_NORM_SCALE = 1
_SCORED = 0.3
"""Share of the work after which gradients are known."""
_NORMS: Mapping[str, Callable[[NDArray[np.floating], int], Scores]] = {
    "l1": importance.l1,
    "l2": importance.l2,
    "fpgm": importance.fpgm,
}


def score_units(groups: Groups, chosen: Sequence[Group], step: PruneStructured, context: StepContext) -> Scores:
    """The importance of every unit: 0 for those not in `chosen` groups.

    Of norms, each stored matrix that units are slices of adds its slices' score over the mean of them, so that large
    matrices do not drown small ones (group importance, Fang et al. 2023). Of channels that convolutions read, only the
    weights that read them count: a BatchNormalization, there or folded in, scales what makes them, which says little.
    Raises SlimlineError NOTHING_TO_SCORE.
    """
    match step.criterion:
        case "random":
            return importance.random(groups.count, context.seed)
        case "taylor":
            return _by_gradients(groups, chosen, step, context)
        case criterion:
            return score_by_weights(groups.graph, chosen, criterion, groups.count)


def score_by_weights(graph: Graph, groups: Sequence[Group], criterion: str, count: int) -> Scores:
    """As `score_units`, by a norm or by `bn_scale`, of `count` units. Raises SlimlineError NOTHING_TO_SCORE."""
    scores = np.zeros(count)
    outputs = {(weight.name, layer.output_axis) for layer in graph.layers() for weight in layer.weights}
    uses = _uses(graph)
    for group in groups:
        members = _members(graph, group, criterion)
        made = [each for each in members if (each.constant, each.axis) in outputs]
        read = [each for each in members if (each.constant, each.axis) not in outputs]
        own = _sum_scores(graph, members, criterion, count)
        if criterion in _NORMS and any(not _CONVOLUTIONS.isdisjoint(uses[each.constant]) for each in read):
            is_made = _is_alive(_sum_scores(graph, made, criterion, count))
            own = _sum_scores(graph, read, criterion, count) * is_made
        scores[group.units] = own[group.units]
    return scores


def _uses(graph: Graph) -> dict[str, set[str]]:
    """By the name of each stored tensor the operators that read it."""
    return {value.name or "": {node.op_type for node, _ in value.uses()} for value in graph.initializers()}


def _is_alive(made: Scores) -> NDArray[np.bool_]:
    """Whether anything is computed for a unit at all; those of which nothing is go first."""
    alive: NDArray[np.bool_] = made >= _DEAD * made.max(initial=0.0)
    return alive


def _sum_scores(graph: Graph, members: Sequence[Member], criterion: str, count: int) -> Scores:
    return sum((_score_member(graph, member, criterion, count) for member in members), np.zeros(count))


def _by_gradients(groups: Groups, chosen: Sequence[Group], step: PruneStructured, context: StepContext) -> Scores:
    members = [member for group in chosen for member in group.members]
    if context.calibration is None:
        raise SlimlineError("CALIBRATION_DATA_MISSING", "criterion taylor reads gradients, and no data was given")
    run = Pass(
        Samples(groups.graph.inputs, context.calibration),
        step.samples,
        context.device,
        lambda share: context.progress(_SCORED * share, "finding what the loss depends on"),
    )
    return unit_taylor_scores(groups.graph, members, groups.count, run, context.seed)


def _members(graph: Graph, group: Group, criterion: str) -> list[Member]:
    """What the criterion reads of a group."""
    if criterion != "bn_scale":
        return [member for member in group.members if graph.array(member.constant).ndim >= _MATRIX]
    scales = [member for member in group.members if _is_batch_norm_scale(graph, member)]
    if not scales:
        raise SlimlineError(
            "NOTHING_TO_SCORE",
            f"bn_scale reads scales of BatchNormalization, and the channels of {group.layers[0]!r} have none",
            node=group.layers[0],
            hint="Exporters fold it into convolutions. Use `criterion: l2`, or leave such layers out.",
        )
    return scales


def _is_batch_norm_scale(graph: Graph, member: Member) -> bool:
    uses = graph.initializer(member.constant).uses()
    return any(node.op_type == "BatchNormalization" and index == _BATCH_NORM_SCALE for node, index in uses)


def _score_member(graph: Graph, member: Member, criterion: str, count: int) -> Scores:
    """Scores of the units' slices of one stored tensor, [count], with a mean of 1 over those that have any."""
    function = _NORMS.get(criterion, importance.l1)
    of_index = function(graph.array(member.constant), member.axis)
    is_unit = member.units >= 0
    totals = np.bincount(member.units[is_unit], of_index[is_unit], minlength=count)
    return totals / (totals[np.unique(member.units[is_unit])].mean() or 1.0)
