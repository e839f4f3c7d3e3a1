"""The database as a worker uses it: a write waits out a short outage, for the work it reports has taken hours."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.db.database import Database

Result = TypeVar("Result")

_PAUSE_S = 0.5
_log = structlog.get_logger(__name__)


class AttemptLostError(Exception):
    """The row is no longer this attempt's: its lease ran out and another has it, or it was deleted."""


class Ledger:
    """Writes that are tried again while the database is away, for up to `patience_s`."""

    def __init__(self, database: Database, patience_s: float) -> None:
        self._database = database
        self._patience_s = patience_s

    def write(self, change: Callable[[Session], Result]) -> Result:
        """Run `change` in a transaction, again after an outage, so it must be guarded. A long outage is raised."""
        give_up_at = time.monotonic() + self._patience_s
        while True:
            try:
                with self._database.write() as session:
                    return change(session)
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() >= give_up_at:
                    raise
                _log.warning("the database is away, trying again", reason=str(error.orig))
                time.sleep(_PAUSE_S)


def hold(still_ours: bool) -> None:  # noqa: FBT001 - the answer of a guarded UPDATE
    """Raises AttemptLostError, which rolls the transaction back, unless a guarded UPDATE found its row."""
    if not still_ours:
        raise AttemptLostError
