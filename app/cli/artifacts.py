"""`slimline artifacts`: list, show, download and delete what jobs made."""

from typing import Annotated

import typer

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.deletion import Yes, delete_each
from app.cli.downloads import DownloadOption, save_artifact
from app.cli.output import AsJson, Limit, print_json, print_resource, print_resources

artifacts = typer.Typer(no_args_is_help=True, help="List, show and download what jobs made.")

ArtifactId = Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact's id, art_….")]
ArtifactIds = Annotated[list[str], typer.Argument(metavar="ARTIFACT...", help="Ids, art_….")]

_COLUMNS = ("id", "job", "format", "filename", "size_bytes", "created_at")


@artifacts.command("list")
def list_artifacts(
    *,
    job: Annotated[str | None, typer.Option(help="Only those of this job.")] = None,
    limit: Limit = 50,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List artifacts, newest first."""
    with connect(url) as client:
        print_resources(_COLUMNS, client.list("/v1/artifacts", limit=limit, job=job), as_json=as_json)


@artifacts.command()
def show(artifact_id: ArtifactId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show an artifact."""
    with connect(url) as client:
        print_resource(client.get(f"/v1/artifacts/{artifact_id}"), as_json=as_json)


@artifacts.command()
def download(
    artifact_id: ArtifactId,
    *,
    output: DownloadOption = None,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Download an artifact; a broken download is taken up where it stopped, and its sha256 is checked."""
    with connect(url) as client:
        saved = save_artifact(client, client.get(f"/v1/artifacts/{artifact_id}"), output)
    if as_json:
        print_json(saved)


@artifacts.command()
def delete(
    artifact_ids: ArtifactIds, *, yes: Yes = False, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Delete artifacts. Their jobs keep what was measured."""
    delete_each("artifacts", artifact_ids, url, yes=yes, as_json=as_json)
