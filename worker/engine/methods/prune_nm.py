"""`prune.nm`: of every m neighbouring weights at most n stay, chosen by magnitude or by Wanda's scores."""

from collections.abc import Mapping, Sequence
from functools import partial

import onnx_ir as ir

from app.contracts.failure import SlimlineError
from app.contracts.recipe.prune_nm import PruneNm
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, Record, StepContext, split_layers
from worker.engine.pruning.activations import InputNorms, find_input_norms
from worker.engine.pruning.iterative import prune_in_rounds
from worker.engine.pruning.masks import OPERATORS, held_weights, obstacle_in_ties, obstacle_to_zeros, set_zeros
from worker.engine.pruning.reduction import Reduction, find_reductions, obstacle_to_groups
from worker.engine.pruning.rounds import ONLY, Round
from worker.engine.pruning.sparse_restoration import NOT_RUN, restore_sparse
from worker.engine.quantization.calibration import Pass
from worker.engine.samples import Samples
from worker.engine.tensors.magnitude import Mask, magnitude
from worker.engine.tensors.semi_structured import least_of_groups, least_of_masked

_WATCHED = 0.4
"""Share of the work after which inputs were watched; the rest is choosing and restoring."""


class SemiStructuredPruning(Method[PruneNm]):
    """n:m pruning along the axis that is summed over (Mishra et al. 2021)."""

    step_type = PruneNm

    def apply(self, graph: Graph, step: PruneNm, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_PRUNE."""
        if step.schedule is not None:
            return prune_in_rounds(graph, step, step.schedule, partial(_prune, step), context)
        return _prune(step, graph, context, ONLY)

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return obstacle_to_zeros(graph, layer) or obstacle_to_groups(layer, PruneNm().m)


def _prune(step: PruneNm, graph: Graph, context: StepContext, now: Round) -> Graph:
    """Before the last round the weakest weights go of those that are none of the n in their groups."""
    pruned = graph.clone()
    layers, reductions = _claim(_choose(pruned, step, context), step, context.record)
    if not layers:
        hint = f"It works on {', '.join(sorted(OPERATORS))} that sum over a multiple of m={step.m} inputs."
        raise context.record.refusal("NOTHING_TO_PRUNE", hint)
    samples = Samples(graph.inputs, context.calibration) if context.calibration is not None else None
    norms = _find_norms(pruned, reductions, step, samples, context)
    masks = {each.weight: _find_mask(pruned, each, step, now, norms) for each in reductions}
    set_zeros(pruned, layers, masks, context.record)
    if step.restore and samples is not None:
        run = _pass(samples, step, context, _WATCHED, 1, "restoring statistics")
        restore_sparse(pruned, graph, layers, run, context.record)
    context.record.notes += _told(layers, reductions, step)
    return pruned


def _choose(graph: Graph, step: PruneNm, context: StepContext) -> list[Layer]:
    """The layers in which groups fit; one that shares weights with an excluded layer is left alone too."""
    excluded = {layer.node for layer in graph.select(step.exclude)} if step.exclude else set()
    held = held_weights(graph, lambda layer: layer.node in excluded)

    def obstacle(owner: Graph, layer: Layer) -> str | None:
        return obstacle_to_zeros(owner, layer) or obstacle_to_groups(layer, step.m) or obstacle_in_ties(layer, held)

    return split_layers(graph, step, context, obstacle)


def _claim(layers: Sequence[Layer], step: PruneNm, record: Record) -> tuple[list[Layer], list[Reduction]]:
    """What is cut in groups, and the layers that sum along them.

    The first reader of a weight decides on the axis; a later one that sums along another is recorded as skipped.
    """
    claimed: dict[ir.Value, Reduction] = {}
    kept = []
    for layer in layers:
        fitting = [each for each in find_reductions(layer) if each.length % step.m == 0]
        rivals = [claimed[each.weight] for each in fitting if each.axis != claimed.get(each.weight, each).axis]
        if rivals:
            record.skipped(layer, f"{rivals[0].layer.name} reads the same weights along another axis")
            continue
        kept.append(layer)
        for each in fitting:
            claimed.setdefault(each.weight, each)
    return kept, list(claimed.values())


def _pass(samples: Samples, step: PruneNm, context: StepContext, begin: float, end: float, doing: str) -> Pass:
    """A run on `samples` that is this part of the work."""

    def progress(share: float) -> None:
        context.progress(begin + (end - begin) * share, doing)

    return Pass(samples, step.samples, context.device, progress)


def _find_norms(
    graph: Graph, reductions: Sequence[Reduction], step: PruneNm, samples: Samples | None, context: StepContext
) -> Mapping[ir.Value, InputNorms]:
    """Of inputs on the calibration data, by weight; empty where magnitudes decide."""
    if step.criterion == "magnitude":
        return {}
    if samples is None:
        context.record.note("chosen by magnitude: with calibration data the inputs have a say (criterion=wanda)")
        return {}
    try:
        run = _pass(samples, step, context, 0, _WATCHED, "watching the inputs of layers")
        norms = find_input_norms(graph, reductions, run)
    except SlimlineError as error:
        if step.criterion == "wanda" or error.failure.code not in NOT_RUN:
            raise
        context.record.note(f"chosen by magnitude: {error.failure.message}")
        return {}
    if blind := [each.weight.name or "" for each in reductions if each.weight not in norms]:
        context.record.note(f"by magnitude, since what they multiply cannot be watched: {', '.join(blind)}")
    return norms


def _find_mask(
    graph: Graph, reduction: Reduction, step: PruneNm, now: Round, norms: Mapping[ir.Value, InputNorms]
) -> Mask:
    array, seen = graph.array(reduction.weight), norms.get(reduction.weight)
    scores = magnitude(array) if seen is None else seen.weigh(array)
    mask = least_of_groups(scores, step.n, step.m, reduction.axis)
    demanded = 1 - step.n / step.m
    return mask if now.is_last else least_of_masked(scores, mask, now.share(demanded) / demanded)


def _told(layers: Sequence[Layer], reductions: Sequence[Reduction], step: PruneNm) -> list[str]:
    """Who runs the zeros faster, and which weights of pruned layers have none."""
    grouped = {each.weight for each in reductions}
    notes = [
        f"{each.weight.name} of {layer.name} stays dense: {each.told}, no multiple of m={step.m}"
        for layer in layers
        for each in find_reductions(layer)
        if each.weight not in grouped
    ]
    if (step.n, step.m) == (2, 4):
        notes.append("sparse tensor cores (NVIDIA Ampere and later, through TensorRT) run 2:4 faster in 8 or 16 bits")
    else:
        notes.append(f"sparse tensor cores run 2:4, not {step.n}:{step.m}")
    return notes
