"""What must hold before any work is done: a recipe's needs against the data that was given."""

from collections.abc import Mapping, Sequence

from app.contracts.failure import SlimlineError
from app.contracts.recipe import DataRole, Step
from app.contracts.recipe.step import find_missing_data
from app.contracts.targets import Targets
from worker.engine.data import Dataset
from worker.engine.graph import Graph


def check_data(recipe: Sequence[Step], datasets: Mapping[DataRole, Dataset], graph: Graph) -> None:
    """Raises SlimlineError for data a step needs and does not have, or that does not fit the model."""
    if missing := find_missing_data(recipe, datasets):
        raise SlimlineError(
            missing.role.missing_code,
            missing.message,
            step=missing.step,
            hint=f"Give a dataset as data.{missing.role}; a few hundred samples do.",
        )
    for dataset in datasets.values():
        dataset.check_for(graph.inputs, graph.outputs)


def check_targets(targets: Targets, evaluation: Dataset | None) -> None:
    """Raises SlimlineError for a target on accuracy that no labels could ever judge."""
    if targets.need_labels and not (evaluation and evaluation.facts.has_labels):
        raise SlimlineError(
            "LABELS_MISSING",
            "a target on accuracy needs labelled evaluation data",
            hint="Add labels (y) to the evaluation data, or drop max_accuracy_drop and min_accuracy.",
        )
