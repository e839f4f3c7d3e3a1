"""Waiting out a database that is away: which errors mean that, and work that is tried again until it is back."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.db.database import CommitUnknownError, Database

Result = TypeVar("Result")

PAUSE_S = 0.5
REQUEST_PATIENCE_S = 10.0
"""How long a request waits for a database that is away before its client is told to come back."""

AWAY = (OperationalError, InterfaceError)
"""What a driver raises when the database is away, locked, or has no room: nothing was committed."""

_log = structlog.get_logger(__name__)


class Ledger:
    """Reads and writes that are tried again while the database is away, for up to `patience_s`.

    `guarded`: what is done twice does no harm, at worst an event stands in a log twice. Then a change whose commit is
    in doubt is tried again, too.
    """

    def __init__(self, database: Database, patience_s: float = REQUEST_PATIENCE_S, *, guarded: bool = True) -> None:
        self._database = database
        self._patience_s = patience_s
        self._waits_out = (*AWAY, CommitUnknownError) if guarded else AWAY

    def write(self, change: Callable[[Session], Result], project: str | None = None) -> Result:
        """Run `change` in a transaction, again after an outage. A long outage is raised, as is CommitUnknownError."""
        return self._wait_out(lambda: self._database.write(project), change)

    def read(self, query: Callable[[Session], Result], project: str | None = None) -> Result:
        """Run `query`, again after an outage. A long outage is raised."""
        return self._wait_out(lambda: self._database.read(project), query)

    def _wait_out(
        self, begin: Callable[[], AbstractContextManager[Session]], work: Callable[[Session], Result]
    ) -> Result:
        give_up_at = time.monotonic() + self._patience_s
        while True:
            try:
                with begin() as session:
                    return work(session)
            except self._waits_out as error:
                if time.monotonic() >= give_up_at:
                    raise
                _log.warning("the database is away, trying again", reason=str(error.__cause__ or error))
                time.sleep(PAUSE_S)
