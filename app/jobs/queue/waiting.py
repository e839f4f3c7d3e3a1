"""What the sweep looks for among jobs that wait or are held, and moving their times when the clock jumps."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.orm import Session, load_only

from app.contracts.messages import Queue
from app.contracts.states import IngestState, JobState, Waiting
from app.db.base import UtcTime, utc_now
from app.db.clock import SWEPT_MOST, asked_at, is_wrong_lease, lease_end, read_clock
from app.jobs.tables import JobRow
from app.models.tables import ModelRow

# Loaded without what a newer version may have written in a way that this one cannot read.
_IN_BRIEF = load_only(
    JobRow.state, JobRow.queue, JobRow.queue_s, JobRow.attempt, JobRow.counted_from, JobRow.handed_back, JobRow.lost
)


def find_expired(session: Session) -> Sequence[JobRow]:
    """Held jobs whose lease ran out, longest ago first."""
    query = select(JobRow).options(_IN_BRIEF).where(JobRow.lease_until < asked_at(session)).order_by(JobRow.lease_until)
    return session.scalars(query.limit(SWEPT_MOST)).all()


def find_overdue(session: Session) -> Sequence[JobRow]:
    """Queued jobs that have waited longer than they may."""
    overdue = (JobRow.queue_until < asked_at(session), JobRow.state == JobState.QUEUED)
    query = select(JobRow).options(_IN_BRIEF).where(*overdue).order_by(JobRow.queue_until)
    return session.scalars(query.limit(SWEPT_MOST)).all()


def find_settled(session: Session, before: datetime) -> Sequence[JobRow]:
    """Jobs queued before `before` that wait for inputs although their model was checked or deleted, in no order."""
    query = select(JobRow).options(_IN_BRIEF).where(JobRow.waiting_for == Waiting.INPUTS.value)
    is_settled = or_(ModelRow.state.in_((IngestState.READY, IngestState.REJECTED)), ModelRow.deleted_at.is_not(None))
    query = query.join(ModelRow, ModelRow.id == JobRow.model_id).where(JobRow.queued_at < before, is_settled)
    return session.scalars(query.limit(SWEPT_MOST)).all()


def find_startable(session: Session, queue: Queue, before: datetime) -> Sequence[str]:
    """Ids of jobs that were queued before `before` and that a worker may take now, in the order of the index."""
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= asked_at(session))
    query = select(JobRow.id).where(JobRow.waiting_for == Waiting.WORKER.value, JobRow.queue == queue, due)
    late = or_(JobRow.queued_at < before, JobRow.queued_at > utc_now())  # the clock was ahead then
    in_index = (JobRow.project, JobRow.rank, JobRow.id)
    return session.scalars(query.where(late).order_by(*in_index).limit(SWEPT_MOST)).all()


def put_off(session: Session, job_id: str, seconds: float) -> None:
    """Have a waiting job wait so much longer, whatever is in its row."""
    waits = (JobRow.id == job_id, JobRow.waiting_for == Waiting.WORKER.value)
    session.execute(update(JobRow).where(*waits).values(not_before=lease_end(session, seconds)))


def follow_jump(session: Session, seconds: float) -> None:
    """The clock jumped so far ahead (or, negative, back): who was waiting does not wait any longer, or less, for it.

    Only what was queued by the clock before a jump ahead is moved, and nothing waits longer than from now on: to do it
    twice, as two sweepers do, is no harm.
    """
    today = read_clock(session)
    waiting = select(JobRow.id, JobRow.queued_at, JobRow.queue_until, JobRow.queue_s)
    moved = []
    for job_id, queued_at, until, queue_s in session.execute(waiting.where(JobRow.queue_until.is_not(None))):
        is_from_before = seconds > 0 and queued_at.timestamp() < today - seconds
        ends_at = (until or queued_at).timestamp() + (seconds if is_from_before else 0)
        moved.append({"job_id": job_id, "ends_at": datetime.fromtimestamp(min(ends_at, today + queue_s), UTC)})
    if moved:
        still = (JobRow.id == bindparam("job_id"), JobRow.state == JobState.QUEUED.value)
        ends = bindparam("ends_at", type_=UtcTime)
        session.connection().execute(update(JobRow).where(*still).values(queue_until=ends), moved)


def clamp_pauses(session: Session, longest_s: float) -> None:
    """End pauses that no one can have meant: the clock was ahead when they were given."""
    too_long = JobRow.not_before > asked_at(session) + timedelta(seconds=2 * longest_s)
    session.execute(update(JobRow).where(too_long).values(not_before=None))


def clamp_leases(session: Session, lease_s: float, *, jumped: bool = False) -> None:
    """Have leases begin anew that no worker can have asked for; or all, when the clock jumped."""
    wrong = is_wrong_lease(session, JobRow.lease_until, lease_s, jumped=jumped)
    session.execute(update(JobRow).where(wrong).values(lease_until=lease_end(session, lease_s)))


def count_by_state(session: Session) -> dict[str, int]:
    """How many jobs are in each state."""
    return dict(session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all())
