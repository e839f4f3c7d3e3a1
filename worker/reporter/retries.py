"""Whether a job that did not get through is tried once more, when, and what that counts as. No query lives here."""

from datetime import timedelta
from typing import Any

from app.contracts.failure import Failure, FaultKind
from app.db.base import utc_now
from app.db.ingest import IngestRow
from app.jobs.tables import JobRow

Tried = JobRow | IngestRow

LOST_MOST = 10
"""Workers that may be lost with one job between two checkpoints. They may die of it, or only with it: that takes more
patience than a crash of its own child."""

WORKER_LOST = "WORKER_LOST"

SHORTAGES = frozenset({"STORAGE_UNREACHABLE", "STORAGE_FULL", "WORKER_DISK_FULL"})
"""What the service is short of: jobs and uploads wait until that is over, and no start of them is counted."""

_PAUSE_MIN_S = 10.0
PAUSE_MAX_S = 300.0


def is_poison(tried: Tried, max_attempts: int) -> bool:
    """Whether it has been started often enough without getting further."""
    return tried.failed_starts >= max_attempts or tried.lost >= LOST_MOST


def starts_exhausted(starts: int) -> Failure:
    """It was begun too often, a job or the check of an upload."""
    return Failure(
        kind=FaultKind.TRANSIENT,
        code="ATTEMPTS_EXHAUSTED",
        message=f"it was started {starts} times, and each time its worker went away before it got further",
        hint="submit it again; if that happens each time, the operator should read the workers' logs",
    )


def find_retry(tried: Tried, failure: Failure, max_attempts: int, waits_s: float) -> dict[str, Any] | None:
    """The columns of what is tried once more after `failure`; None: that would not help, or it had its tries.

    For what the service is short of it waits `waits_s` from when it came.
    """
    if failure.kind != FaultKind.TRANSIENT:
        return None
    if failure.code in SHORTAGES:
        is_late = tried.created_at + timedelta(seconds=waits_s) < utc_now()
        pause_s = min(_PAUSE_MIN_S * 2 ** min(tried.handed_back, 10), PAUSE_MAX_S)
        later = {"handed_back": tried.handed_back + 1, "not_before": utc_now() + timedelta(seconds=pause_s)}
        return None if is_late else later
    if failure.code == WORKER_LOST:
        return {"lost": tried.lost + 1} if tried.lost + 1 < LOST_MOST else None
    return {} if tried.failed_starts < max_attempts else None
