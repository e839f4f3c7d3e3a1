"""Makes a graph thinner: of every group of channels a share stays, by the structured pruning in `pruning`."""

from functools import partial

from app.contracts.failure import SlimlineError
from app.contracts.recipe.prune_structured import PruneStructured
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups
from worker.engine.methods.method import Record, StepContext
from worker.engine.pruning.choice import Choice, plan_units
from worker.engine.pruning.report import tell_what_is_left
from worker.engine.pruning.restoration import Kept
from worker.engine.pruning.scores import score_units
from worker.engine.pruning.selection import select_groups
from worker.engine.students.context import StudentContext

_HINT = "The model's list of layers says of each why its channels stay. Use `depth`, or upload a smaller model."


def make_thinner(graph: Graph, share: float, context: StudentContext) -> tuple[Graph, Kept]:
    """A copy of `graph` with the `share` of the channels of every group that matter most, and which those are.

    Raises SlimlineError NOTHING_TO_PRUNE.
    """
    step = PruneStructured(amount=1 - share)
    groups = find_groups(graph)
    selection = select_groups(graph, groups, step)
    scores = score_units(groups, selection.groups, step, _as_step_context(context))
    units = plan_units(Choice(selection.groups, selection.shares, selection.multiples, scores), step).units
    if not units:
        raise SlimlineError("NOTHING_TO_PRUNE", f"`width` {share:g} takes no channel out of this model", hint=_HINT)
    thinner = groups.remove(units)
    context.note(f"channels thinned to {share:g}; {tell_what_is_left(graph, thinner)}")
    return thinner, partial(groups.kept, units)


def _as_step_context(context: StudentContext) -> StepContext:
    """For scores; norms of weights read no data and leave no records."""
    return StepContext(Record(0, "train"), None, context.samples, context.seed, context.device, lambda *_, **__: None)
