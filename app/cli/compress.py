"""`slimline compress`: upload, submit, watch, download, compare."""

from collections.abc import Iterable, Mapping
from pathlib import Path
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
from app.cli.progress import follow_job, transfer_bar
from app.client import Client, Resource
from app.client.client import Kind
from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Device, Task

_ID_PREFIX: Mapping[Kind, str] = {"models": "mdl_", "datasets": "dst_"}


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
        preprocessing = read_preprocess(preprocess)
        spec = {
            "recipe": [step.model_dump(mode="json", exclude_unset=True) for step in read_recipe(recipe)],
            "targets": read_targets(target or []).model_dump(exclude_none=True),
            "preprocess": preprocessing.model_dump(mode="json", exclude_unset=True) if preprocessing else None,
            "task": task,
            "seed": seed,
            "device": device,
        }
        _require_sources(model, roles.values())
        sent = {source: _send(client, "datasets", source) for source in dict.fromkeys(roles.values())}
        data = {role: sent[source] for role, source in roles.items()}
        job = _run(client, {**spec, "model": _send(client, "models", model), "data": data})
        for artifact in job["artifacts"][:1]:
            save_artifact(client, artifact, output)
    if as_json:
        print_json(job)
    else:
        print_report(job)
    raise typer.Exit(exit_code(job))


def _require_sources(model: str, datasets: Iterable[str]) -> None:
    """Raises SlimlineError FILE_UNREADABLE before anything is sent."""
    kinds: dict[str, Kind] = {**dict.fromkeys(datasets, "datasets"), model: "models"}
    for source, kind in kinds.items():
        if not _is_id(kind, source) and not Path(source).is_file():
            raise SlimlineError("FILE_UNREADABLE", f"{source} is no file", hint="give a file, or an id of an upload")


def _is_id(kind: Kind, source: str) -> bool:
    return source.startswith(_ID_PREFIX[kind]) and not Path(source).exists()


def _send(client: Client, kind: Kind, source: str) -> str:
    """The id of `source`, uploaded where it is a file."""
    if _is_id(kind, source):
        return source
    with transfer_bar("upload", Path(source).name) as on_bytes:
        return str(client.upload(kind, Path(source), on_bytes=on_bytes)["id"])


def _run(client: Client, spec: Mapping[str, Any]) -> Resource:
    """Submit a job and return it once it is over. Ctrl-C cancels it."""
    job = client.submit(spec)
    try:
        return follow_job(client, job["id"])
    except KeyboardInterrupt:
        client.cancel(job["id"])
        complain(f"interrupted: {job['id']} is cancelled")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
