"""`slimline migrate`: brings the database to the newest schema."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.environment import read_settings
from app.db.migrate import upgrade


def migrate(
    *,
    data: Annotated[Path | None, typer.Option(help="Folder of `slimline up`; default: SLIMLINE_DATA.")] = None,
) -> None:
    """Bring the database to the newest schema."""
    settings = read_settings(data=data) if data else read_settings()
    settings.data.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)
    typer.echo("the database has the newest schema")
