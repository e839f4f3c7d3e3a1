"""Deleting resources by id: asked for once more on a terminal, one by one, and told what is gone."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from app.cli.connection import connect
from app.cli.output import print_json

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; without a terminal nobody is asked.")]


def delete_each(kind: str, ids: Sequence[str], url: str, *, yes: bool, as_json: bool) -> None:
    """Delete them in order up to the first that is refused, and print those that are gone."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {' '.join(ids)}? This cannot be undone.", abort=True, err=True)
    gone: list[str] = []
    with connect(url) as client:
        try:
            for id_ in ids:
                client.delete(f"/v1/{kind}/{id_}")
                gone.append(id_)
        finally:
            if as_json:
                print_json([{"id": id_, "deleted": True} for id_ in gone])
            else:
                typer.echo("".join(f"{id_} is deleted\n" for id_ in gone), nl=False)
