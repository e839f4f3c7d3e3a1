"""`prune.structured`: whole channels, neurons, heads and hidden units go, with all that depends on them."""

from collections.abc import Collection
from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.contracts.failure import SlimlineError
from app.contracts.recipe.channel_pruning import ChannelPruning
from app.contracts.recipe.prune_structured import PruneStructured
from worker.engine.graph import Graph, Layer
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.methods.method import Method, Record, StepContext
from worker.engine.pruning.decision import Way, decide
from worker.engine.pruning.iterative import prune_in_rounds
from worker.engine.pruning.lineage import choose_among
from worker.engine.pruning.report import find_obstacles, record_layers, tell_what_is_left
from worker.engine.pruning.rounds import ONLY, Round, on_the_way
from worker.engine.pruning.scores import score_units
from worker.engine.pruning.selection import select_groups
from worker.engine.pruning.sparse_restoration import free_tensors, restore_and_tell
from worker.engine.quantization.calibration import Pass
from worker.engine.samples import Samples

_HINT = "The model's list of layers says of each what can go and, if nothing can, why."
_SMALL = "the shares are so small that no chosen layer loses a single channel"
_DECIDED = 0.8
"""Share of the work after which it is known what goes."""


class StructuredPruning(Method[PruneStructured]):
    """Structured pruning by channel groups found on the graph, exact against the masked graph.

    With a target of latency it depends on measured times, which no seed makes the same; else it is deterministic.
    """

    step_type = PruneStructured

    def apply(self, graph: Graph, step: PruneStructured, context: StepContext) -> Graph:
        """See `Method.apply`.

        Raises NOTHING_TO_PRUNE, NOTHING_TO_SCORE, TARGET_OUT_OF_REACH or MACS_UNKNOWN.
        """
        if step.schedule is not None:
            return prune_in_rounds(graph, step, step.schedule, partial(_prune, step, graph), context)
        return _prune(step, graph, graph, context, ONLY)

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return find_obstacles(graph)[layer.name]

    def obstacles(self, graph: Graph) -> dict[str, str | None]:
        """See `Method.obstacles`."""
        return find_obstacles(graph)


def _prune(step: PruneStructured, start: Graph, graph: Graph, context: StepContext, now: Round) -> Graph:
    """`graph` without what is to be gone after the round; `start` is the graph before the first."""
    context.progress(0.0, "finding channels that go together")
    groups = find_groups(graph)
    selection = select_groups(graph, groups, step)
    if now.is_first and not selection.groups:
        for layer in graph.layers():
            context.record.skipped(layer, selection.reasons[layer.name])
        raise context.record.refusal("NOTHING_TO_PRUNE", _HINT)
    units = _decide(step, start, groups, context, now)
    pruned = groups.remove(units)
    record_layers(graph, pruned, selection, context.record)
    context.record.note(tell_what_is_left(start, pruned))
    if step.restore and context.calibration is not None:
        run = Pass(
            Samples(graph.inputs, context.calibration),
            step.samples,
            context.device,
            lambda share: context.progress(_DECIDED + (1 - _DECIDED) * share, "restoring statistics"),
        )
        _restore(pruned, groups, units, step, run, context.record)
    return pruned


def _decide(step: PruneStructured, start: Graph, groups: Groups, context: StepContext, now: Round) -> list[int]:
    """The units that go in this round; none may be due. Raises NOTHING_TO_PRUNE where none is in the end."""
    before = groups if now.is_first else find_groups(start)
    scores = score_units(groups, select_groups(groups.graph, groups, step).groups, step, context)

    def units_of(asked: ChannelPruning) -> list[int]:
        selection = select_groups(groups.graph, groups, asked)
        choice = choose_among(selection, groups, scores, before, step.round_to)
        return decide(groups, choice, asked, context, Way(before.graph, step))

    units = units_of(on_the_way(step, now))
    if now.is_first and not units and (now.is_last or not units_of(step)):
        raise SlimlineError("NOTHING_TO_PRUNE", _SMALL, hint="Raise the share, or lower `round_to`.")
    return units


def _restore(
    pruned: Graph, groups: Groups, units: Collection[int], step: PruneStructured, run: Pass, record: Record
) -> None:
    """Restore statistics, in place; layers that the step leaves out stay as they are."""
    free = free_tensors(pruned, groups.graph.select(step.include, step.exclude))

    def kept(tensor: str, axis: int) -> NDArray[np.intp] | None:
        return groups.kept(units, tensor, axis) if tensor in free else None

    restore_and_tell(pruned, groups.graph, kept, run, record)
