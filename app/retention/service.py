"""How long things are kept, beside what settings say. What an unfinished job needs is never deleted here."""

from datetime import timedelta

from sqlalchemy.orm import Session

from app.db.clock import SWEPT_MOST, asked_at
from app.idempotency import repository as answers
from app.retention import repository
from app.uploads import repository as uploads
from app.webhooks import repository as webhooks

ANSWERS_KEPT = timedelta(hours=24)
"""Under an Idempotency-Key."""

DELIVERIES_KEPT = timedelta(days=30)
"""In the log of a webhook."""

UPLOADS_KEPT = timedelta(hours=1)
"""After they expired. The API is faster where uploads go on, and removes the bytes that had come."""

DELETED_ROWS_KEPT = timedelta(days=1)
"""Longer than any transaction that may still read one."""

JOBS_AT_ONCE = 50
"""A job may have ten thousand events, and all of these go in one transaction."""


def delete_finished_jobs(session: Session, retention_days: float) -> bool:
    """Delete a few jobs that ended longer ago; whether there may be more. 0 days: jobs are kept for ever."""
    if not retention_days:
        return False
    older_than = timedelta(days=retention_days)
    return repository.delete_finished_jobs(session, older_than, JOBS_AT_ONCE) == JOBS_AT_ONCE


def forget(session: Session) -> None:
    """Delete some of what has only been kept in case someone asks again."""
    now = asked_at(session)
    answers.forget(session, now - ANSWERS_KEPT)
    webhooks.forget_deliveries(session, now - DELIVERIES_KEPT)
    for upload_id in uploads.find_expired(session, now - UPLOADS_KEPT, SWEPT_MOST):
        uploads.remove_expired(session, upload_id, now - UPLOADS_KEPT)
    repository.forget_deleted(session, DELETED_ROWS_KEPT)
