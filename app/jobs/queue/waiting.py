"""What the sweep looks for among jobs that wait or are held, and moving their times when the clock jumps."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from app.contracts.messages import Queue
from app.contracts.states import IngestState, Waiting
from app.db.base import utc_now
from app.db.clock import SWEPT_MOST, is_wrong_lease, lease_end, now
from app.jobs.tables import JobRow
from app.models.tables import ModelRow


def find_expired(session: Session) -> Sequence[JobRow]:
    """Held jobs whose lease ran out, longest ago first."""
    query = select(JobRow).where(JobRow.lease_until < now(session)).order_by(JobRow.lease_until)
    return session.scalars(query.limit(SWEPT_MOST)).all()


def find_overdue(session: Session) -> Sequence[JobRow]:
    """Queued jobs that have waited longer than they may."""
    query = select(JobRow).where(JobRow.queue_until < utc_now()).order_by(JobRow.queue_until)
    return session.scalars(query.limit(SWEPT_MOST)).all()


def find_settled(session: Session, before: datetime) -> Sequence[JobRow]:
    """Jobs queued before `before` that still wait for inputs although their model has been checked, in no order."""
    query = select(JobRow).where(JobRow.waiting_for == Waiting.INPUTS.value, JobRow.queued_at < before)
    checked = (IngestState.READY, IngestState.REJECTED)
    query = query.join(ModelRow, ModelRow.id == JobRow.model_id).where(ModelRow.state.in_(checked))
    return session.scalars(query.limit(SWEPT_MOST)).all()


def find_startable(session: Session, queue: Queue, before: datetime) -> Sequence[str]:
    """Ids of jobs that were queued before `before` and that a worker may take now, in the order of the index."""
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= utc_now())
    query = select(JobRow.id).where(JobRow.waiting_for == Waiting.WORKER.value, JobRow.queue == queue, due)
    late = or_(JobRow.queued_at < before, JobRow.queued_at > utc_now())  # the clock was ahead then
    in_index = (JobRow.project, JobRow.rank, JobRow.id)
    return session.scalars(query.where(late).order_by(*in_index).limit(SWEPT_MOST)).all()


def shift_times(session: Session, seconds: float) -> None:
    """The clock jumped: what was to end at a time ends so much later (or, negative, earlier)."""
    query = select(JobRow.id, JobRow.queue_until, JobRow.not_before)
    by = timedelta(seconds=seconds)
    moved = [
        {"id": id_, "queue_until": until + by, "not_before": due and due + by}
        for id_, until, due in session.execute(query.where(JobRow.queue_until.is_not(None)))
        if until is not None
    ]
    if moved:
        session.execute(update(JobRow), moved)


def clamp_leases(session: Session, lease_s: float, *, jumped: bool = False) -> None:
    """Have leases begin anew that no worker can have asked for; or all, when the clock jumped."""
    wrong = is_wrong_lease(session, JobRow.lease_until, lease_s, jumped=jumped)
    session.execute(update(JobRow).where(wrong).values(lease_until=lease_end(session, lease_s)))


def count_by_state(session: Session) -> dict[str, int]:
    """How many jobs are in each state."""
    return dict(session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all())
