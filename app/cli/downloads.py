"""Files brought from the server to where the caller wants them, with a bar."""

from pathlib import Path

import typer

from app.cli.edge import ExitCode, complain
from app.cli.progress import transfer_bar
from app.client import Client, Resource


def save_artifact(client: Client, artifact: Resource, output: Path | None) -> Path:
    """Write an artifact to a file, or into a folder (default: the current one) under its own name."""
    return _save(client, f"/v1/artifacts/{artifact['id']}/content", artifact, output)


def save_model(client: Client, model: Resource, output: Path | None) -> Path:
    """Write a model as it was uploaded, in the same way."""
    return _save(client, f"/v1/models/{model['id']}/content", model, output)


def _save(client: Client, path: str, resource: Resource, output: Path | None) -> Path:
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
    return to
