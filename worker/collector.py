"""The collector: deletes rows that are kept no longer, and stored blobs that no row refers to. What for, is not here.

A blob is stored before the row that refers to it is committed, so one without a row is not yet garbage. It goes only if

1. its content was put `collect_after_s` ago or earlier, by the store's clock: longer than any writer takes to commit;
2. no row referred to it in this run nor in the one before: a row that takes the digest over from another row, which is
   deleted meanwhile, has been committed by then. This holds when clocks jump, too;
3. at its removal the content has not been put again since it was listed. On a folder a lock keeps writers away between
   that look and the end of the file; on S3 nothing can, but the two requests follow at once and are not repeated.

Rows that are kept for some days go only while the database's clock can be trusted: a machine that starts with a wrong
one, or whose clock is set wrong for a moment, must not lose what it had kept.

Rows are looked at before blobs are removed, one blob at a time: a kill loses nothing, and several collectors at once
only find less to do.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.contracts.failure import SlimlineError
from app.db.database import CommitUnknownError
from app.settings import Settings
from worker.clock import SteadyClock
from worker.reporter.collect import Records
from worker.workspace import Stock

_log = structlog.get_logger(__name__)

BATCH = 500
"""Blobs that one look at the rows is about."""

SUSPECTS_MOST = 100_000
"""Blobs remembered from one run to the next; the rest waits."""

SETTLE_S = 600.0
"""How long the database's clock must have run without a jump before rows are deleted for their age, seconds."""

HARMLESS_S = 600.0
"""Rows may go so much too early when the clock jumps, seconds: they are kept for a day and longer."""

_FIRST_S = 30.0
"""Until the first run, seconds."""

_STOP_S = 5.0
"""How long a stopping sweeper waits for the collector, seconds. Cutting it off does no harm."""


class Freed(NamedTuple):
    """What a run removed."""

    blobs: int
    size_bytes: int


class Collector:
    """Runs again and again, remembering what it suspects from one run to the next."""

    def __init__(self, records: Records, stock: Stock, after_s: float, stopped: threading.Event) -> None:
        self._records = records
        self._stock = stock
        self._after_s = after_s
        self._stopped = stopped
        self._suspects: set[str] = set()

    def run(self, *, is_clock_steady: bool = True) -> Freed:
        """One pass. Raises SQLAlchemyError or SlimlineError when the database or the store is away.

        Unless `is_clock_steady` no row is deleted for its age.
        """
        if is_clock_steady:
            self._records.forget()
            while not self._stopped.is_set() and self._records.delete_finished_jobs():
                pass
        self._stock.remove_abandoned()
        return self._collect()

    def _collect(self) -> Freed:
        before, self._suspects = self._suspects, set()
        blobs, size_bytes = 0, 0
        found = self._stock.find_old(self._after_s)
        while not self._stopped.is_set() and (batch := list(islice(found, BATCH))):
            unreferenced = self._records.find_unreferenced([blob.sha256 for blob in batch])
            for blob in batch:
                if blob.sha256 in unreferenced & before and self._stock.remove(blob):
                    blobs, size_bytes = blobs + 1, size_bytes + blob.size_bytes
            self._suspects |= set(islice(unreferenced - before, SUSPECTS_MOST - len(self._suspects)))
        if blobs:
            _log.info("blobs that no one needed were removed", blobs=blobs, bytes=size_bytes)
        return Freed(blobs, size_bytes)


@contextmanager
def collecting(stopped: threading.Event, settings: Settings) -> Iterator[None]:
    """Have a thread collect every `settings.collect_s` seconds until `stopped`: a slow listing holds no sweep up."""
    thread = threading.Thread(target=_collect_until, args=(stopped, settings), name="collector", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(_STOP_S)


def _collect_until(stopped: threading.Event, settings: Settings) -> None:
    records = Records(settings)
    collector = Collector(records, Stock.open(settings), settings.collect_after_s, stopped)
    clock = SteadyClock(records.read_clock, SETTLE_S, HARMLESS_S)
    try:
        pause_s = min(_FIRST_S, settings.collect_s)  # it takes two runs: one who is often restarted collects as well
        while not stopped.wait(pause_s):
            pause_s = settings.collect_s
            try:
                collector.run(is_clock_steady=clock.is_steady())
            except (SQLAlchemyError, CommitUnknownError, SlimlineError):
                _log.exception("nothing could be collected; it is tried again")
    finally:
        records.close()
