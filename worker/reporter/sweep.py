"""The sweep: takes work back from dead workers, sends again what was lost on the way, fails what waited too long."""

from collections.abc import Collection
from datetime import datetime, timedelta

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.contracts.messages import Message, Queue, TaskName
from app.contracts.states import JobState
from app.datasets.tables import DatasetRow
from app.db import ingest
from app.db.base import utc_now
from app.db.database import send_after_commit
from app.jobs.queue import attempts, moves, waiting
from app.jobs.service import message_for
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.settings import Settings
from worker.reporter.ingests import Uploads
from worker.reporter.jobs import log_retry
from worker.reporter.queued import queue_time_exceeded, send_or_fail, settle_those_waiting
from worker.reporter.retries import LOST_MOST, PAUSE_MAX_S, starts_exhausted

_log = structlog.get_logger(__name__)

_CHECK: dict[Uploads, TaskName] = {ModelRow: TaskName.INGEST_MODEL, DatasetRow: TaskName.INGEST_DATASET}


def sweep(session: Session, settings: Settings, drained: Collection[Queue], jump_s: float = 0) -> None:
    """One pass over what needs a hand. Two sweepers at once do no harm: every move is guarded.

    `drained` are the queues of the broker that hold no message. Only there can a message for what waits have been lost;
    sending again while others are in front would fill the broker. `jump_s`: how far the clock jumped.
    """
    if jump_s:
        _log.warning("the clock jumped", seconds=round(jump_s, 1))
        waiting.follow_jump(session, jump_s)
    waiting.clamp_pauses(session, PAUSE_MAX_S)
    _settle_leases(session, settings.lease_s, jumped=jump_s != 0)
    for job in waiting.find_expired(session):
        _take_back(session, job)
    for job in waiting.find_overdue(session):
        values = {"failure": queue_time_exceeded(job)}
        moves.move(session, job.id, JobState.FAILED, attempt=job.attempt, values=values)
    waiting_since = utc_now() - timedelta(seconds=settings.sweep_s)
    for table in _CHECK:
        _sweep_uploads(session, table, settings)
    for job in waiting.find_settled(session, waiting_since):
        _settle(session, job, settings)
    for queue in drained:
        _send_again(session, queue, waiting_since)


def _settle_leases(session: Session, lease_s: float, *, jumped: bool) -> None:
    """Cut leases that no worker can have asked for. After a jump of the clock all begin anew: the dead show soon."""
    waiting.clamp_leases(session, lease_s, jumped=jumped)
    for table in _CHECK:
        ingest.clamp_leases(session, table, lease_s, jumped=jumped)


def _send_again(session: Session, queue: Queue, waiting_since: datetime) -> None:
    if queue == Queue.INGEST:
        for table, task in _CHECK.items():
            for row in ingest.find_waiting(session, table, waiting_since):
                send_after_commit(session, Message(task=task, id=row.id, queue=queue))
    else:
        for job_id in waiting.find_startable(session, queue, waiting_since):
            send_after_commit(session, message_for(job_id, queue))


def _settle(session: Session, job: JobRow, settings: Settings) -> None:
    try:
        send_or_fail(session, job, settings.max_attempts)
    except ValidationError:
        _log.exception("this version cannot read a job; another may", id=job.id)


def _take_back(session: Session, job: JobRow) -> None:
    _log.warning("the lease of a job ran out", id=job.id, attempt=job.attempt, state=job.state)
    if job.state == JobState.CANCELLING:
        attempts.end(session, job.id, job.attempt, JobState.CANCELLED, {})
    elif job.lost + 1 >= LOST_MOST:
        values = {"failure": starts_exhausted(job.failed_starts + job.lost), "lost": JobRow.lost + 1}
        attempts.end(session, job.id, job.attempt, JobState.FAILED, values)
    elif attempts.hand_back(session, job.id, job.attempt, {"lost": JobRow.lost + 1}, if_expired=True):
        log_retry(session, job.id, "its worker went away")
        send_after_commit(session, message_for(job.id, job.queue))


def _sweep_uploads(session: Session, table: Uploads, settings: Settings) -> None:
    for row in ingest.find_abandoned(session, table):
        _log.warning("the lease of an upload's check ran out", id=row.id, attempt=row.attempt)
        if row.lost + 1 >= LOST_MOST:
            ingest.reject(session, table, row.id, row.attempt, starts_exhausted(row.failed_starts + row.lost))
            settle_those_waiting(session, row.id, settings.max_attempts)
        else:
            ingest.release(session, table, row.id, row.attempt, {"lost": row.lost + 1})
            send_after_commit(session, Message(task=_CHECK[table], id=row.id, queue=Queue.INGEST))
