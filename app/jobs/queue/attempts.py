"""What an attempt writes to the job it holds. Every write is fenced: it names the attempt, and a late one is lost."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from app.contracts.events import Progress
from app.contracts.states import MOVES, JobState
from app.db.base import utc_now
from app.db.clock import lease_end, now
from app.jobs.queue.moves import HELD, change, move
from app.jobs.repository import add_event
from app.jobs.tables import JobRow


def claim(session: Session, job_id: str, lease_s: float) -> JobRow | None:
    """Take a queued job. None when it is not queued any more. The row's `attempt` is the token of every later write."""
    values = {
        "attempt": JobRow.attempt + 1,
        "lease_until": lease_end(session, lease_s),
        "started_at": func.coalesce(JobRow.started_at, utc_now()),
    }
    if not move(session, job_id, JobState.RUNNING, values=values):
        return None
    return session.get(JobRow, job_id, populate_existing=True)


def renew(session: Session, job_id: str, attempt: int, lease_s: float) -> JobState | None:
    """Keep the lease; the state tells whether a cancel was asked for. None: the job is no longer this attempt's."""
    query = update(JobRow).where(JobRow.id == job_id, _is_held(attempt, HELD))
    query = query.values(lease_until=lease_end(session, lease_s))
    return JobState(state) if (state := session.scalar(query.returning(JobRow.state))) else None


def set_progress(session: Session, job_id: str, attempt: int, progress: Progress) -> bool:
    """Store how far the job is. False: no longer this attempt's."""
    return _write(session, job_id, attempt, progress=progress, revision=JobRow.revision + 1)


def save_checkpoint(session: Session, job_id: str, attempt: int, step: int, sha256: str) -> bool:
    """The graph after `step` (from 0) is stored: a retry resumes behind it. False: no longer this attempt's.

    What the step had left on its way is of no use any more.
    """
    values = {"checkpoint_step": step, "checkpoint_sha256": sha256, "partial_step": None, "partial_sha256": None}
    return _write(session, job_id, attempt, **values, **_COUNTED_ANEW)


def save_partial_checkpoint(session: Session, job_id: str, attempt: int, step: int, sha256: str) -> bool:
    """What `step` (from 0) has done so far is stored: a retry resumes within it. False: no longer this attempt's."""
    values = {"partial_step": step, "partial_sha256": sha256}
    return _write(session, job_id, attempt, **values, **_COUNTED_ANEW)


_COUNTED_ANEW = {"counted_from": JobRow.attempt, "handed_back": 0, "lost": 0}


def record_event(session: Session, job_id: str, attempt: int, type_: str, data: dict[str, Any]) -> bool:
    """Append an event of a running attempt. False: no longer this attempt's, and nothing was written."""
    if not _write(session, job_id, attempt, revision=JobRow.revision + 1):
        return False
    add_event(session, job_id, type_, data)
    return True


def end(session: Session, job_id: str, attempt: int, to: JobState, values: dict[str, Any]) -> bool:
    """Move the held job to a final state. False: no longer this attempt's, or `MOVES` does not lead there."""
    sources = [state for state in HELD if to in MOVES[state]]
    return change(session, job_id, to, _is_held(attempt, sources), values)


def hand_back(session: Session, job_id: str, attempt: int, values: dict[str, Any], *, if_expired: bool = False) -> bool:
    """Have the held job wait for a worker once more, in its old place. False: no longer this attempt's, or cancelling.

    With `if_expired` only if its lease has not been renewed meanwhile.
    """
    guard = _is_held(attempt, [JobState.RUNNING])
    if if_expired:
        guard = and_(guard, JobRow.lease_until < now(session))
    queue_s = session.scalar(select(JobRow.queue_s).where(JobRow.id == job_id)) or 0
    waiting = {"queued_at": utc_now(), "queue_until": lease_end(session, queue_s)}
    return change(session, job_id, JobState.QUEUED, guard, {**waiting, **values})


def _write(session: Session, job_id: str, attempt: int, **values: Any) -> bool:
    query = update(JobRow).where(JobRow.id == job_id, _is_held(attempt, HELD)).values(**values)
    return session.scalar(query.returning(JobRow.id)) is not None


def _is_held(attempt: int, states: Sequence[JobState]) -> ColumnElement[bool]:
    return and_(JobRow.attempt == attempt, JobRow.state.in_(states))
