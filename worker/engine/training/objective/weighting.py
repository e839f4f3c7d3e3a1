"""Which losses a training has, with which weights. How they are computed is elsewhere."""

from collections.abc import Mapping

from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Task
from app.contracts.training import LossName
from worker.engine.training.objective.evidence import Evidence
from worker.engine.training.objective.goal import Goal

NEEDS_LABELS: frozenset[LossName] = frozenset({"dkd", "hard"})
NEEDS_SCORES: frozenset[LossName] = frozenset({"dkd", "soft"})
NEEDS_TEACHER: frozenset[LossName] = frozenset({"dkd", "soft", "logits", "feature"})
WITH_LABELS: frozenset[Task] = frozenset({"classification", "segmentation", "regression"})
"""Tasks that have a loss for labels."""


def weigh(goal: Goal, evidence: Evidence) -> Mapping[LossName, float]:
    """The losses and their weights, none of them 0.

    Raises SlimlineError LABELS_MISSING for a loss on labels that are not there, and LOSS_DOES_NOT_FIT for one on class
    scores where there are none.
    """
    asked = {name: weight for name, weight in _asked(goal, evidence).items() if weight > 0}
    for name in asked:
        if name in NEEDS_LABELS and not (goal.has_labels and evidence.task in WITH_LABELS):
            raise _unlabelled(goal, evidence, name)
        if name in NEEDS_SCORES and evidence.scores is None:
            raise SlimlineError(
                "LOSS_DOES_NOT_FIT",
                f"the loss {name!r} compares class scores, and no output is known to hold such: {_needed(evidence)}",
                hint="Say `task` in the job where the model classifies, or use `loss: logits`, which takes any output.",
            )
    return asked


def _asked(goal: Goal, evidence: Evidence) -> Mapping[LossName, float]:
    distill = goal.options.distill
    if distill is None:
        return {"hard": 1.0}
    if distill.weights is not None:
        return distill.weights
    name = _choose(evidence) if distill.loss == "auto" else distill.loss
    if isinstance(name, dict) or name == "hard":
        return {"hard": 1.0}
    if not goal.has_labels or evidence.task not in WITH_LABELS:
        return {name: 1.0}
    return {name: distill.alpha, "hard": 1 - distill.alpha}


def _choose(evidence: Evidence) -> LossName:
    """What `auto` stands for."""
    is_classified = evidence.task in ("classification", "segmentation") and evidence.scores is not None
    return "soft" if is_classified or evidence.gives_only_probabilities else "logits"


def _needed(evidence: Evidence) -> str:
    match evidence.task:
        case "segmentation":
            return "segmentation needs [N, C, ...] with several classes"
        case "classification" | None:
            return "that would be [N, C] with several classes, or the result of a Softmax"
        case task:
            return f"the task is {task}"


def _unlabelled(goal: Goal, evidence: Evidence, name: LossName) -> SlimlineError:
    if not goal.has_labels:
        what = "the training data has no labels"
    else:
        what = f"the task is {evidence.task}, for whose labels there is no loss"
    asked = "training without a teacher" if goal.options.distill is None else f"the loss {name!r}"
    return SlimlineError(
        "LABELS_MISSING",
        f"{asked} needs labels, and {what}",
        hint="Give training data with labels, or distil: `distill: {}` learns from the original without any.",
    )
