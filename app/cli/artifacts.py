"""`slimline artifacts`: list, show and download what jobs made."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.downloads import save_artifact
from app.cli.output import AsJson, print_resource, print_resources

artifacts = typer.Typer(no_args_is_help=True, help="List, show and download what jobs made.")

ArtifactId = Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact's id, art_….")]


@artifacts.command("list")
def list_artifacts(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job that made them.")],
    *,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the artifacts of a job."""
    with connect(url) as client:
        columns = ("id", "format", "filename", "size_bytes", "sha256")
        print_resources(columns, client.job(job_id)["artifacts"], as_json=as_json)


@artifacts.command()
def show(artifact_id: ArtifactId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show an artifact."""
    with connect(url) as client:
        print_resource(client.get(f"/v1/artifacts/{artifact_id}"), as_json=as_json)


@artifacts.command()
def download(
    artifact_id: ArtifactId,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file or a folder.")] = None,
    url: ServerUrl = DEFAULT_URL,
) -> None:
    """Download an artifact; a broken download is taken up where it stopped, and its sha256 is checked."""
    with connect(url) as client:
        save_artifact(client, client.get(f"/v1/artifacts/{artifact_id}"), output)
