"""`slimline jobs`: preflight, submit, list, show, watch, cancel, compare, look at layers, download, delete."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.deletion import Yes, delete_each
from app.cli.downloads import DownloadOption, save_artifact
from app.cli.inputs import read_document
from app.cli.job_report import exit_code, print_report
from app.cli.layers import print_layers
from app.cli.output import AsJson, Limit, print_json, print_resource, print_resources
from app.cli.preflight import preflight
from app.cli.progress import follow_job
from app.contracts.states import JobState

jobs = typer.Typer(no_args_is_help=True, help="Submit, list, watch and cancel jobs.")
jobs.command()(preflight)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, job_….")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids, job_….")]

_COLUMNS = ("id", "state", "name", "model", "created_at")


@jobs.command("list")
def list_jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag: `key` or `key=value`.")] = None,
    limit: Limit = 50,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connect(url) as client:
        found = client.list("/v1/jobs", limit=limit, state=state, model=model, tag=tag)
        print_resources(_COLUMNS, found, as_json=as_json)


@jobs.command()
def submit(
    spec: Annotated[Path, typer.Argument(help="The job as JSON or YAML, as POST /v1/jobs takes it; - for stdin.")],
    *,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Queue a job and print its id.

    Example: slimline jobs submit job.json
    """
    with connect(url) as client:
        job = client.submit(yaml.safe_load(sys.stdin) if str(spec) == "-" else read_document(spec))
    if as_json:
        print_json(job)
    else:
        typer.echo(job["id"])


@jobs.command()
def show(job_id: JobId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a job as it is now."""
    with connect(url) as client:
        job = client.job(job_id)
    if as_json:
        print_json(job)
        return
    told_apart = ("comparison", "verdict", "failure")
    print_resource({name: value for name, value in job.items() if name not in told_apart}, as_json=False)
    print_report(job)


@jobs.command()
def watch(job_id: JobId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Follow a job to its end, with the exit status of `compress`. Ctrl-C stops the watching, not the job."""
    with connect(url) as client:
        job = follow_job(client, job_id)
    if as_json:
        print_json(job)
    else:
        print_report(job)
    raise typer.Exit(exit_code(job))


@jobs.command()
def cancel(job_id: JobId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with connect(url) as client:
        job = client.cancel(job_id)
    if as_json:
        print_json(job)
    else:
        typer.echo(f"{job_id} is {job['state']}")


@jobs.command()
def retry(job_id: JobId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Queue what a failed or cancelled job was to do as a new job, and print its id."""
    with connect(url) as client:
        job = client.retry(job_id)
    if as_json:
        print_json(job)
    else:
        typer.echo(job["id"])


@jobs.command()
def events(job_id: JobId, *, limit: Limit = 1000, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List what happened to a job, oldest first."""
    with connect(url) as client:
        found = client.list(f"/v1/jobs/{job_id}/events", limit=limit)
        print_resources(("created_at", "type", "data"), found, as_json=as_json)


@jobs.command()
def comparison(
    job_id: JobId,
    *,
    output_format: Annotated[Literal["table", "csv", "markdown"], typer.Option("--format")] = "table",
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print the original beside every step and the final artifact."""
    path = f"/v1/jobs/{job_id}/comparison"
    with connect(url) as client:
        if as_json:
            print_json(client.get(path))
        elif output_format == "table":
            print_report(client.job(job_id))
        else:
            typer.echo(client.get_text(path, format=output_format), nl=False)


@jobs.command()
def layers(job_id: JobId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Print what became of each layer, which ones lose most, and recipes to try instead."""
    with connect(url) as client:
        found = client.get(f"/v1/jobs/{job_id}/layers")
    if as_json:
        print_json(found)
    else:
        print_layers(found)


@jobs.command()
def download(
    job_id: JobId,
    *,
    output: DownloadOption = None,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Download what a job made."""
    with connect(url) as client:
        saved = [save_artifact(client, artifact, output) for artifact in client.job(job_id)["artifacts"]]
    if as_json:
        print_json(saved)


@jobs.command()
def delete(job_ids: JobIds, *, yes: Yes = False, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete jobs that are over, with their artifacts."""
    delete_each("jobs", job_ids, url, yes=yes, as_json=as_json)
