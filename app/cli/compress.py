"""`slimline compress`: upload, submit, watch, download, compare."""

from collections.abc import Mapping
from typing import Any

import typer

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.downloads import save_artifact
from app.cli.edge import ExitCode, complain
from app.cli.inputs import read_preprocess, read_recipe, read_targets
from app.cli.job_options import (
    DataOption,
    ModelArgument,
    OutputOption,
    PreprocessOption,
    RecipeOption,
    SeedOption,
    TargetOption,
)
from app.cli.job_report import exit_code, print_report
from app.cli.output import AsJson, print_json
from app.cli.progress import follow_job
from app.cli.sources import require_sources, send, send_data, send_recipe
from app.client import Client, Resource
from app.contracts.job_spec import Device, Task
from app.contracts.references import find_other_models


def compress(  # noqa: PLR0913  the parameters of a command are its options
    model: ModelArgument,
    *,
    recipe: RecipeOption,
    output: OutputOption,
    calibrate: DataOption = None,
    evaluate: DataOption = None,
    train: DataOption = None,
    task: Task | None = None,
    target: TargetOption = None,
    preprocess: PreprocessOption = None,
    seed: SeedOption = 0,
    device: Device = "auto",
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Compress a model through a running service and download the result.

    A recipe is steps joined by `+`, options after `:`, joined by `,`.

    Ends with 0: done and every target met; 1: failed; 2: wrong usage; 3: a target was missed, the result is still
    written; 130: interrupted, the job is cancelled.

    Example: slimline compress net.onnx -r "prune.magnitude:amount=0.5 + quantize.static" --calibrate train.npz
    --evaluate test.npz --target max_accuracy_drop=0.01 -o small.onnx
    """
    sources = {"calibrate": calibrate, "evaluate": evaluate, "train": train}
    roles = {role: source for role, source in sources.items() if source is not None}
    with connect(url) as client:
        preprocessing, steps = read_preprocess(preprocess), read_recipe(recipe)
        spec = {
            "targets": read_targets(target or []).model_dump(exclude_none=True),
            "preprocess": preprocessing.model_dump(mode="json", exclude_unset=True) if preprocessing else None,
            "task": task,
            "seed": seed,
            "device": device,
        }
        require_sources([model, *find_other_models(steps)], roles.values())
        sent = {"data": send_data(client, roles), "recipe": send_recipe(client, steps)}
        job = _run(client, {**spec, **sent, "model": send(client, "models", model)})
        for artifact in job["artifacts"][:1]:
            save_artifact(client, artifact, output)
    if as_json:
        print_json(job)
    else:
        print_report(job)
    raise typer.Exit(exit_code(job))


def _run(client: Client, spec: Mapping[str, Any]) -> Resource:
    """Submit a job and return it once it is over. Ctrl-C cancels it."""
    job = client.submit(spec)
    try:
        return follow_job(client, job["id"])
    except KeyboardInterrupt:
        client.cancel(job["id"])
        complain(f"interrupted: {job['id']} is cancelled")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
