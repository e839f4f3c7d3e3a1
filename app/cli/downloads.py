"""Files brought from the server to where the caller wants them, with a bar."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.edge import ExitCode, complain
from app.cli.progress import transfer_bar
from app.client import Client, Resource

DownloadOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="A file or a folder; default: here, under its own name.")
]


def save_artifact(client: Client, artifact: Resource, output: Path | None) -> Resource:
    """Write an artifact to a file, or into a folder under its own name; returns what was written where."""
    return _save(client, f"/v1/artifacts/{artifact['id']}/content", artifact, output)


def save_model(client: Client, model: Resource, output: Path | None) -> Resource:
    """Write a model as it was uploaded, in the same way."""
    return _save(client, f"/v1/models/{model['id']}/content", model, output)


def _save(client: Client, path: str, resource: Resource, output: Path | None) -> Resource:
    to = output or Path()
    if to.is_dir():
        to /= Path(resource["filename"]).name  # a name from elsewhere must not lead out of the folder
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with transfer_bar("download", to.name) as on_bytes:
            client.download(path, resource["sha256"], to, on_bytes=on_bytes)
    except OSError as refused:
        complain(f"{to} cannot be written: {refused.strerror}", "give another place with -o")
        raise typer.Exit(ExitCode.FAILED) from None
    typer.echo(f"{to} ({resource['size_bytes']} bytes, sha256 verified)", err=True)
    return {"path": str(to), "size_bytes": resource["size_bytes"], "sha256": resource["sha256"]}
