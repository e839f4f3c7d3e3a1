"""What `models upload` and `datasets upload` have in common: send, wait for the check, tell what it found."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.edge import ExitCode, complain
from app.cli.output import print_resource
from app.cli.progress import transfer_bar
from app.client import Client
from app.client.client import Kind
from app.contracts.failure import Failure
from app.contracts.preprocess import Preprocess
from app.contracts.states import IngestState

NameOption = Annotated[str | None, typer.Option(help="What to call it; default: the file's name.")]


def upload_and_check(
    client: Client, kind: Kind, file: Path, *, name: str | None, preprocess: Preprocess | None = None, as_json: bool
) -> None:
    """Print the checked resource. Ends the command with status 1 when it is rejected."""
    given = preprocess.model_dump(mode="json", exclude_unset=True) if preprocess else None
    with transfer_bar("upload", file.name) as on_bytes:
        sent = client.upload(kind, file, name=name, preprocess=given, on_bytes=on_bytes)
    resource = client.wait_until_checked(kind, sent["id"])
    print_resource(resource, as_json=as_json)
    if resource["state"] == IngestState.REJECTED:
        problem = Failure.model_validate(resource["problem"])
        complain(f"{file} was rejected: {problem.message} [{problem.code}]", problem.hint)
        raise typer.Exit(ExitCode.FAILED)
