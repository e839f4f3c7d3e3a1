"""`slimline jobs preflight`: what a recipe would do to a model, as a table for each step. Nothing is run."""

from collections.abc import Callable, Sequence

import typer
from pydantic import TypeAdapter

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.inputs import read_recipe
from app.cli.job_options import DataOption, ModelArgument, RecipeOption
from app.cli.output import AsJson, build_table, print_json, print_table
from app.cli.quantities import show_share
from app.cli.sources import require_sources, send, send_data, send_recipe
from app.client import Resource
from app.contracts.preflight import LayerPlan, StepPlan
from app.contracts.references import find_other_models

_STEPS = TypeAdapter(list[StepPlan])
_TEXT = ("layer", "operator", "can go", "tied to", "remark")
_TIED_SHOWN = 2


def preflight(  # noqa: PLR0913  the parameters of a command are its options
    model: ModelArgument,
    *,
    recipe: RecipeOption,
    calibrate: DataOption = None,
    evaluate: DataOption = None,
    train: DataOption = None,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print what a recipe would do to each layer of a model, without running it.

    A model that is a file is uploaded and checked first. Ends with 2 where a job with this recipe would be refused.

    Example: slimline jobs preflight net.onnx -r prune.magnitude:amount=0.5
    """
    sources = {"calibrate": calibrate, "evaluate": evaluate, "train": train}
    roles = {role: source for role, source in sources.items() if source is not None}
    with connect(url) as client:
        steps = read_recipe(recipe)
        require_sources([model, *find_other_models(steps)], roles.values())
        model_id = send(client, "models", model)
        client.wait_until_checked("models", model_id)
        sent = {"recipe": send_recipe(client, steps), "data": send_data(client, roles)}
        found = client.preflight({"model": model_id, **sent})
    if as_json:
        print_json(found)
    else:
        print_preflight(found)


def print_preflight(found: Resource) -> None:
    """The answer of `/v1/jobs/preflight` on stdout; columns that say nothing are left out."""
    for plan in _STEPS.validate_python(found["steps"]):
        typer.echo(f"step {plan.step + 1}: {plan.method}")
        columns = [[title, *map(cell, plan.layers)] for title, cell in _COLUMNS]
        filled = [column for column in columns if any(column[1:])]
        if filled:
            print_table(build_table(list(zip(*filled, strict=True)), text=_TEXT))
        for note in plan.notes:
            typer.echo(f"note: {note}")
    for note in found["notes"]:
        typer.echo(f"note: {note}")


def _works(plan: LayerPlan) -> str:
    return {True: "yes", False: "no", None: "?"}[plan.applies]


def _channels(plan: LayerPlan) -> str:
    """`64 -> 32`, of all output channels."""
    if plan.channels is None:
        return ""
    left = plan.planned.channels_left if plan.planned else None
    return str(plan.channels.total) if left is None else f"{plan.channels.total} -> {left}"


def _tied(plan: LayerPlan) -> str:
    """The first two layers that lose the same channels, and how many more."""
    names = plan.channels.tied_to if plan.channels else []
    more = len(names) - _TIED_SHOWN
    return ", ".join(names[:_TIED_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _zeros(plan: LayerPlan) -> str:
    return "" if plan.planned is None or plan.planned.sparsity is None else show_share(plan.planned.sparsity)


def _bits(plan: LayerPlan) -> str:
    """`W8A8`: of weights and of activations."""
    if plan.planned is None or plan.planned.bits is None:
        return ""
    activations = "" if plan.planned.activation_bits is None else f"A{plan.planned.activation_bits}"
    return f"W{plan.planned.bits}{activations}"


_COLUMNS: Sequence[tuple[str, Callable[[LayerPlan], str]]] = (
    ("layer", lambda plan: plan.layer),
    ("operator", lambda plan: plan.op),
    ("works", _works),
    ("can go", lambda plan: str(plan.channels) if plan.channels else ""),
    ("channels", _channels),
    ("zeros", _zeros),
    ("bits", _bits),
    ("tied to", _tied),
    ("remark", lambda plan: plan.why or (plan.channels.why if plan.channels else None) or ""),
)
