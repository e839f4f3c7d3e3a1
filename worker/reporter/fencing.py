"""Losing a row to another attempt: every write of a worker names its attempt, and one that finds no row is late."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from app.db.database import CommitUnknownError
from app.db.patience import AWAY, Ledger

Result = TypeVar("Result")


class AttemptLostError(Exception):
    """The row is no longer this attempt's: its lease ran out and another has it, or it was deleted."""


def hold(still_ours: bool) -> None:  # noqa: FBT001 - the answer of a guarded UPDATE
    """Raises AttemptLostError, which rolls the transaction back, unless a guarded UPDATE found its row."""
    if not still_ours:
        raise AttemptLostError


class AttemptLedger:
    """A ledger for the writes of one attempt. Its patience is the lease's length."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def write(self, change: Callable[[Session], Result]) -> Result:
        """As `Ledger.write`. Raises AttemptLostError when the database was away for longer than the lease lasts."""
        try:
            return self._ledger.write(change)
        except (*AWAY, CommitUnknownError) as error:
            raise AttemptLostError from error
