"""Keys without a server: the command line's way into the database. It migrates nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.contracts.failure import SlimlineError
from app.db.database import Database
from app.db.migrate import is_current
from app.keys import repository
from app.keys.tables import KeyRow
from app.settings import Settings


@contextmanager
def writing(settings: Settings) -> Iterator[Session]:
    """A transaction that sees every project. Raises SlimlineError DATABASE_UNREACHABLE and SCHEMA_OUTDATED."""
    with _opened(settings) as database:
        if not is_current(database.engine):
            raise SlimlineError("SCHEMA_OUTDATED", "the database is not of this version", hint="run `slimline migrate`")
        with database.write() as session:
            yield session


def has_any_key(settings: Settings) -> bool:
    """Whether a key was ever made; no, where there is no database yet. Raises DATABASE_UNREACHABLE."""
    if not _is_there(settings):
        return False
    with _opened(settings) as database, database.connection() as connection:
        return inspect(connection).has_table(KeyRow.__tablename__) and repository.has_any_key(connection)


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    if not _is_there(settings):
        hint = (
            "`slimline migrate` or `slimline up` makes one; name its folder with --data, or set SLIMLINE_DATABASE_URL"
        )
        raise SlimlineError("DATABASE_UNREACHABLE", f"there is no database {_place(settings)}", hint=hint)
    database = Database(settings.database)
    try:
        yield database
    except SQLAlchemyError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise SlimlineError("DATABASE_UNREACHABLE", reason, hint="check SLIMLINE_DATABASE_URL") from error
    finally:
        database.close()


def _is_there(settings: Settings) -> bool:
    # Opening an SQLite database that is not there would make it.
    return make_url(settings.database).get_backend_name() != "sqlite" or _place(settings).is_file()


def _place(settings: Settings) -> Path:
    return Path(make_url(settings.database).database or "")
