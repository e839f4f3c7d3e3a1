"""`slimline migrate`: the one command that opens the database."""

import typer

from app.db.migrate import upgrade
from app.settings import Settings


def migrate() -> None:
    """Bring the database of SLIMLINE_DATABASE_URL to the newest schema."""
    settings = Settings()
    settings.data.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)
    typer.echo("the database has the newest schema")
