"""Waiting out a database that is away: which errors mean that, and a write that is tried again until it is back."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.db.database import CommitUnknownError, Database

Result = TypeVar("Result")

PAUSE_S = 0.5
AWAY = (OperationalError, InterfaceError)
"""What a driver raises when the database is away, locked, or has no room: nothing was committed."""

_log = structlog.get_logger(__name__)


class Ledger:
    """Writes that are tried again while the database is away, for up to `patience_s`.

    `guarded`: doing a change twice does no harm. Then one whose commit is in doubt is tried again, too.
    """

    def __init__(self, database: Database, patience_s: float, *, guarded: bool = True) -> None:
        self._database = database
        self._patience_s = patience_s
        self._waits_out = (*AWAY, CommitUnknownError) if guarded else AWAY

    def write(self, change: Callable[[Session], Result], project: str | None = None) -> Result:
        """Run `change` in a transaction, again after an outage. A long outage is raised, as is CommitUnknownError."""
        give_up_at = time.monotonic() + self._patience_s
        while True:
            try:
                with self._database.write(project) as session:
                    return change(session)
            except self._waits_out as error:
                if time.monotonic() >= give_up_at:
                    raise
                _log.warning("the database is away, trying again", reason=str(error.__cause__ or error))
                time.sleep(PAUSE_S)
