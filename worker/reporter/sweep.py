"""The sweep: takes work back from dead workers, sends again what was lost on the way, fails what waited too long."""

from collections.abc import Collection
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.orm import Session

from app.contracts.messages import Message, Queue, TaskName
from app.contracts.states import JobState
from app.datasets.tables import DatasetRow
from app.db import ingest
from app.db.base import utc_now
from app.db.database import send_after_commit
from app.jobs import repository as jobs
from app.jobs.service import message_for
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.settings import Settings
from worker.reporter.ingests import Uploads
from worker.reporter.jobs import log_retry
from worker.reporter.queued import attempts_exhausted, find_overdue, send_or_fail, settle_those_waiting

_log = structlog.get_logger(__name__)

_CHECK: dict[Uploads, TaskName] = {ModelRow: TaskName.INGEST_MODEL, DatasetRow: TaskName.INGEST_DATASET}


def sweep(session: Session, settings: Settings, drained: Collection[Queue]) -> list[str]:
    """One pass over what needs a hand; gives the digests of blobs that no row refers to any more.

    Two sweepers at once do no harm: every move is guarded. `drained` are the queues of the broker that hold no message.
    Only there can a message for what waits have been lost; sending again while others are in front would fill the
    broker.
    """
    for job in jobs.find_expired(session):
        _take_back(session, job, settings)
    waiting_since = utc_now() - timedelta(seconds=settings.sweep_s)
    for table, task in _CHECK.items():
        _sweep_uploads(session, table, settings)
        for row in ingest.find_waiting(session, table, waiting_since) if Queue.INGEST in drained else ():
            send_after_commit(session, Message(task=task, id=row.id, queue=Queue.INGEST))
    for job in jobs.find_queued(session, waiting_since):
        if failure := find_overdue(job):
            jobs.move(session, job.id, JobState.FAILED, attempt=job.attempt, values={"failure": failure})
        elif message_for(job).queue in drained:
            send_or_fail(session, job, settings.max_attempts)
    return [sha256 for sha256 in jobs.drop_partial_checkpoints(session) if not jobs.is_blob_needed(session, sha256)]


def _take_back(session: Session, job: JobRow, settings: Settings) -> None:
    _log.warning("the lease of a job ran out", id=job.id, attempt=job.attempt, state=job.state)
    move = partial(jobs.move, session, job.id, attempt=job.attempt)
    if job.state == JobState.CANCELLING:
        move(JobState.CANCELLED, values={"lease_until": None})
    elif job.failed_starts >= settings.max_attempts:
        move(JobState.FAILED, values={"lease_until": None, "failure": attempts_exhausted(job.failed_starts)})
    elif move(JobState.QUEUED, values={"lease_until": None, "queued_at": utc_now()}):
        log_retry(session, job.id, "its worker went away")
        send_after_commit(session, message_for(job))


def _sweep_uploads(session: Session, table: Uploads, settings: Settings) -> None:
    for row in ingest.find_abandoned(session, table):
        _log.warning("the lease of an upload's check ran out", id=row.id, attempt=row.attempt)
        if row.attempt >= settings.max_attempts:
            ingest.reject(session, table, row.id, row.attempt, attempts_exhausted(row.attempt))
            settle_those_waiting(session, row.id, settings.max_attempts)
        else:
            ingest.release(session, table, row.id, row.attempt)
            send_after_commit(session, Message(task=_CHECK[table], id=row.id, queue=Queue.INGEST))
