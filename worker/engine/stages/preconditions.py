"""What must hold before any work is done: the order of a recipe's steps, and their needs against the data given."""

from collections.abc import Mapping, Sequence

from app.contracts.failure import SlimlineError
from app.contracts.recipe import DataRole, Step
from app.contracts.recipe.step import find_missing_data
from app.contracts.targets import Targets
from worker.engine.data import Dataset
from worker.engine.graph import Graph
from worker.engine.methods import find_method


def check_order(recipe: Sequence[Step]) -> None:
    """Raises SlimlineError ALREADY_QUANTIZED for a step that wants floats after one that makes integers of them."""
    maker: int | None = None
    for index, step in enumerate(recipe):
        method = find_method(step.method)
        if maker is not None and not method.takes_integers:
            raise SlimlineError(
                "ALREADY_QUANTIZED",
                f"step {index + 1} ({step.method}) works on floating-point models, "
                f"and step {maker + 1} ({recipe[maker].method}) makes integers",
                step=index,
                hint="Use one quantization step only.",
            )
        maker = index if method.makes_integers else maker


def check_data(recipe: Sequence[Step], datasets: Mapping[DataRole, Dataset], graph: Graph) -> None:
    """Raises SlimlineError for data a step needs and does not have, or that does not fit the model."""
    if missing := find_missing_data(recipe, datasets):
        raise SlimlineError(
            missing.role.missing_code,
            missing.message,
            step=missing.step,
            hint=f"Give it as data.{missing.role} of a job, --{missing.role} on the command line; "
            "a few hundred samples do.",
        )
    for dataset in datasets.values():
        dataset.check_for(graph.inputs, graph.outputs)
        dataset.check_numbers()


def check_targets(targets: Targets, evaluation: Dataset | None) -> None:
    """Raises SlimlineError for a target on accuracy that no labels could ever judge."""
    if targets.need_labels and not (evaluation and evaluation.facts.has_labels):
        raise SlimlineError(
            "LABELS_MISSING",
            "a target on accuracy needs labelled evaluation data",
            hint="Add labels (y) to the evaluation data, or drop max_accuracy_drop and min_accuracy.",
        )
