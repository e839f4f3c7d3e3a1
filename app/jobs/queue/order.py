"""The order of the queue: priorities that age within a project, fair turns between projects."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Select, String, and_, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from app.contracts.messages import Queue
from app.contracts.states import Waiting
from app.db.base import UtcTime, utc_now
from app.jobs.tables import JobRow
from app.keys.tables import ProjectRow

AGEING_S = 600
"""A job goes before one that has a priority one higher and was queued so much later."""

COUNT_MOST = 100


def rank(queued_at: datetime, priority: int) -> int:
    """Where a job stands among those of its project: the lower goes first. Waiting raises it, for others come later."""
    return int((queued_at.timestamp() - priority * AGEING_S) * 1000)


class Head(NamedTuple):
    """The job of a project that goes next."""

    project: str
    job_id: str


def find_next(session: Session, queue: Queue) -> Head | None:
    """The job to take next from `queue`: of the project with the fewest running, then the one served longest ago."""
    connection = session.connection()
    named = {"queue": queue.value, "now": utc_now()}
    heads = [head for head in connection.execute(_HEADS, named) if head.job_id is not None]
    if len(heads) > 1:
        running = dict(connection.execute(_RUNNING).all())
        heads.sort(key=lambda head: (running.get(head.name, 0), head.served_at is not None, head.served_at))
    return Head(heads[0].name, heads[0].job_id) if heads else None


def note_served(session: Session, project: str) -> None:
    """A job of this project was taken: the others go before its next one."""
    session.connection().execute(update(ProjectRow).where(ProjectRow.name == project).values(served_at=utc_now()))


def count_ahead(session: Session, row: JobRow) -> int:
    """How many waiting jobs of its project go before this one, up to `COUNT_MOST`: a long queue must not slow polling.

    Other projects' turns come between them, so this is no promise of how many run before it.
    """
    named = {"queue": row.queue, "project": row.project, "rank": row.rank, "job_id": row.id}
    return session.connection().scalar(_COUNT_AHEAD, named) or 0


def _waiting() -> Select[str]:
    # Each is a range of the index on waiting_for, queue, project, rank, id.
    waits = and_(JobRow.waiting_for == Waiting.WORKER.value, JobRow.queue == bindparam("queue", type_=String))
    return select(JobRow.id).where(waits)


def _heads() -> Select[str, datetime | None, str | None]:
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= bindparam("now", type_=UtcTime))
    own = _waiting().where(JobRow.project == ProjectRow.name, due).order_by(JobRow.rank, JobRow.id).limit(1)
    head = own.correlate(ProjectRow).scalar_subquery().label("job_id")
    return select(ProjectRow.name, ProjectRow.served_at, head)


def _count_ahead() -> Select[int]:
    its_rank = bindparam("rank", type_=BigInteger)
    before = or_(JobRow.rank < its_rank, and_(JobRow.rank == its_rank, JobRow.id < bindparam("job_id")))
    own = _waiting().where(JobRow.project == bindparam("project"), JobRow.rank <= its_rank, before)
    # In the index's order, lest PostgreSQL read the table in hope of finding so many early.
    first = own.order_by(JobRow.rank, JobRow.id).limit(COUNT_MOST)
    return select(func.count()).select_from(first.subquery())


# Building them takes longer than running them.
_HEADS = _heads()
_COUNT_AHEAD = _count_ahead()
_RUNNING = select(JobRow.project, func.count()).where(JobRow.lease_until.is_not(None)).group_by(JobRow.project)
