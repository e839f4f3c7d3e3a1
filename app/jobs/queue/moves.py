"""Moves of jobs from state to state: guarded UPDATEs that may lose, each told of in an event. Nothing decides here."""

from typing import Any

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.orm import Session

from app.contracts.messages import Queue
from app.contracts.states import MOVES, JobState, Waiting
from app.db.base import utc_now
from app.jobs.repository import add_event
from app.jobs.tables import JobGraphRow, JobRow
from app.webhooks.announcements import announce_job

HELD = (JobState.RUNNING, JobState.CANCELLING)
"""The states in which a job is some attempt's."""

# What a job goes on from is of no use once it is over; the blobs are collected.
_ENDED = {"checkpoint_step": None, "checkpoint_sha256": None, "partial_step": None, "partial_sha256": None}


def move(
    session: Session, job_id: str, to: JobState, *, attempt: int | None = None, values: dict[str, Any] | None = None
) -> bool:
    """Move the job to `to` if `MOVES` allows it and, when given, `attempt` is its last one. False: lost the race.

    For those who hold no attempt: a job that was handed back still has the number of its last one.
    """
    guard = _sources(to)
    if attempt is not None:
        guard = and_(guard, JobRow.attempt == attempt)
    return change(session, job_id, to, guard, values or {})


def cancel_queued(session: Session, job_id: str) -> bool:
    """Cancel a job that no worker has taken. False: it is not queued."""
    return change(session, job_id, JobState.CANCELLED, JobRow.state == JobState.QUEUED, {})


def set_startable(session: Session, job_id: str) -> bool:
    """All inputs of a queued job are there: it waits for a worker now. False: it did so already, or is not queued."""
    waits = (JobRow.id == job_id, JobRow.waiting_for == Waiting.INPUTS.value)
    moved = update(JobRow).where(*waits).values(waiting_for=Waiting.WORKER).returning(JobRow.id)
    return session.scalar(moved) is not None


def find_queue(session: Session, job_id: str) -> Queue | None:
    """The queue of a job in any state."""
    found = session.scalar(select(JobRow.queue).where(JobRow.id == job_id))
    return Queue(found) if found else None


def change(session: Session, job_id: str, to: JobState, guard: ColumnElement[bool], values: dict[str, Any]) -> bool:
    """Move the job to `to` if `guard` holds, with `values`. False: it did not."""
    if to.is_final:
        values = {"finished_at": utc_now(), **_ENDED, **values}
    if to not in HELD:
        values = {"lease_until": None, **values}
    if to == JobState.QUEUED:
        values = {"waiting_for": Waiting.WORKER, **values}
    else:
        values = {"waiting_for": None, "queue_until": None, "not_before": None, **values}
    query = update(JobRow).where(JobRow.id == job_id, guard)
    query = query.values(state=to, revision=JobRow.revision + 1, **values)
    project = session.scalar(query.returning(JobRow.project))
    if project is None:
        return False
    if to.is_final:
        session.execute(delete(JobGraphRow).where(JobGraphRow.job_id == job_id))
    add_event(session, job_id, "state", {"state": to})
    announce_job(session, project, job_id, to)
    return True


def _sources(to: JobState) -> ColumnElement[bool]:
    return JobRow.state.in_([state for state, targets in MOVES.items() if to in targets])
