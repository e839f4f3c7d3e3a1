"""What must hold before any work is done: a recipe's needs against the data that was given."""

from collections.abc import Mapping, Sequence

from app.contracts.failure import SlimlineError
from app.contracts.recipe import DataRole, Step
from app.contracts.targets import Targets
from worker.engine.data import Dataset
from worker.engine.graph import Graph

_OPTIONS: Mapping[DataRole, str] = {
    DataRole.CALIBRATE: "CALIBRATION_DATA_MISSING",
    DataRole.TRAIN: "TRAINING_DATA_MISSING",
    DataRole.EVALUATE: "EVALUATION_DATA_MISSING",
}


def check_data(recipe: Sequence[Step], datasets: Mapping[DataRole, Dataset], graph: Graph) -> None:
    """Raises SlimlineError for data a step needs and does not have, or that does not fit the model."""
    for index, step in enumerate(recipe):
        for role in step.card.needs:
            if role not in datasets:
                raise SlimlineError(
                    _OPTIONS[role],
                    f"step {index + 1} ({step.method}) needs {role} data, and none was given",
                    step=index,
                    hint=f"Give a dataset as data.{role}; a few hundred samples do.",
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
