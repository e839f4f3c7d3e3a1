"""`slimline migrate`: the one command that opens the database."""

import typer

from app.cli.environment import read_settings
from app.db.migrate import upgrade


def migrate() -> None:
    """Bring the database to the newest schema."""
    settings = read_settings()
    settings.data.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)
    typer.echo("the database has the newest schema")
