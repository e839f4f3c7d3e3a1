"""`prune.soft`: training brings channels to zero, and then they are removed."""

from dataclasses import replace
from math import inf

import torch

from app.contracts.failure import SlimlineError
from app.contracts.recipe.prune_soft import PruneSoft
from worker.engine.graph import Graph, Layer
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.measure.comparison import Judge
from worker.engine.methods.method import Method, StepContext
from worker.engine.pruning.choice import Choice
from worker.engine.pruning.decision import decide
from worker.engine.pruning.report import find_obstacles, record_layers, tell_what_is_left
from worker.engine.pruning.retraining import part_of
from worker.engine.pruning.scores import score_by_weights
from worker.engine.pruning.selection import Selection, select_groups
from worker.engine.pruning.sparsity import Drawn, GroupLasso, Sparsity, Vanishing, share_left
from worker.engine.pruning.unit_slices import find_without_batch_norm, norms_in, shrinkable
from worker.engine.quantization.gate import refuse_quantized
from worker.engine.session import open_graph
from worker.engine.training.asking import ask_for_training
from worker.engine.training.request import Outcome
from worker.engine.training.training import train
from worker.engine.wording import counted

_HINT = "The model's list of layers says of each what can go and, if nothing can, why."
_DECIDED = 0.05
"""Share of the work after which training begins."""
_JUDGED_SAMPLES = 128


class SoftPruning(Method[PruneSoft]):
    """Sparsity-inducing training by channel groups, then exact removal."""

    step_type = PruneSoft
    takes_integers = False

    def apply(self, graph: Graph, step: PruneSoft, context: StepContext) -> Graph:
        """See `Method.apply`.

        Raises NOTHING_TO_PRUNE, NOTHING_TO_SCORE, TARGET_OUT_OF_REACH, MACS_UNKNOWN and what training raises.
        """
        refuse_quantized(graph, step.method)
        groups = find_groups(graph)
        selection = select_groups(graph, groups, step)
        if not selection.groups:
            for layer in graph.layers():
                context.record.skipped(layer, selection.reasons[layer.name])
            raise context.record.refusal("NOTHING_TO_PRUNE", _HINT)
        sparsity = _make_sparsity(groups, selection, step, context)
        outcome = _train(groups.graph, step, sparsity, context)
        pruned = _remove(outcome.graph, sparsity, context)
        record_layers(graph, pruned, selection, context.record)
        context.record.note(tell_what_is_left(graph, pruned))
        context.record.notes += outcome.notes
        return pruned

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return find_obstacles(graph)[layer.name]

    def obstacles(self, graph: Graph) -> dict[str, str | None]:
        """See `Method.obstacles`."""
        return find_obstacles(graph)


def _make_sparsity(groups: Groups, selection: Selection, step: PruneSoft, context: StepContext) -> Sparsity:
    """What shrinks which units: as many of each group as pruning in one shot would remove."""
    going = torch.zeros(groups.count, dtype=torch.bool)
    going[_decide(groups, selection, step, context)] = True
    drawn = _choose_drawn(groups, selection, step)
    if step.strength is None:
        return Vanishing(drawn, step.until, going)
    units = [torch.from_numpy(group.units) for group in selection.groups]
    return GroupLasso(drawn, step.until, [(own, int(going[own].sum())) for own in units], step.strength)


def _choose_drawn(groups: Groups, selection: Selection, step: PruneSoft) -> Drawn:
    """What shrinks. Raises NOTHING_TO_SCORE where BatchNormalization is asked for and missing."""
    missing = find_without_batch_norm(groups.graph, selection.groups)
    if step.penalty == "bn_scale" and missing is not None:
        raise SlimlineError(
            "NOTHING_TO_SCORE",
            f"bn_scale shrinks scales of BatchNormalization, and the channels of {missing.layers[0]!r} have none",
            node=missing.layers[0],
            hint="Exporters fold it into convolutions. Use `penalty: group_lasso`, or leave such layers out.",
        )
    is_slimming = step.penalty != "group_lasso" and missing is None
    whole = shrinkable(groups.graph, selection.groups, only_batch_norm=False)
    members = shrinkable(groups.graph, selection.groups, only_batch_norm=True) if is_slimming else whole
    return Drawn(members, norms_in(groups.graph, members, groups.count), whole)


def _decide(groups: Groups, selection: Selection, step: PruneSoft, context: StepContext) -> list[int]:
    """The units that pruning in one shot would remove. Raises NOTHING_TO_PRUNE where there are none."""
    scores = score_by_weights(groups.graph, selection.groups, "l2", groups.count)
    within = replace(context, progress=part_of(context.progress, 0, _DECIDED))
    units = decide(groups, Choice(selection.groups, selection.shares, selection.multiples, scores), step, within)
    if not units:
        raise SlimlineError(
            "NOTHING_TO_PRUNE",
            "the shares are so small that no chosen layer loses a single channel",
            hint="Raise the share, or lower `round_to`.",
        )
    return units


def _train(graph: Graph, step: PruneSoft, sparsity: Sparsity, context: StepContext) -> Outcome:
    """Earlier states are none to keep: what goes is not zero in them."""
    options = step.train.model_copy(update={"keep": "last"})
    request = ask_for_training(graph, step, options, context)
    telling = replace(request.telling, progress=part_of(context.progress, _DECIDED, 1))
    return train(replace(request, regularizer=sparsity, telling=telling))


def _remove(trained: Graph, sparsity: Sparsity, context: StepContext) -> Graph:
    """The trained graph without what went to zero, and a note on how much of it was left."""
    groups = find_groups(trained)
    norms = norms_in(groups.graph, sparsity.drawn.members, groups.count)
    going = sparsity.choose(norms)
    pruned = groups.remove(going.nonzero().flatten().tolist())
    left = max(sparsity.left or 0.0, share_left(norms, sparsity.drawn.norms, going))
    context.record.note(
        f"of {counted(int(going.sum()), 'unit')} at most {left:.1%} of the norm was left when they were set to zero"
    )
    sqnr_db = Judge(trained, context.samples, _JUDGED_SAMPLES).compare(open_graph(pruned))
    by = "nothing" if sqnr_db == inf else f"{-sqnr_db:.0f} dB"
    context.record.note(f"removing them changed the outputs by {by}")
    return pruned
