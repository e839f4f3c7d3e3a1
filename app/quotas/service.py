"""What a project may have at once. Checked in the transaction that adds to it, so that two at once do not both fit."""

from http import HTTPStatus

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.context import RequestContext
from app.db.patience import Ledger
from app.errors import Problem
from app.quotas import repository
from app.settings import Settings

_FORM_BYTES = 64 * 1024
"""What a form may add to the file in it."""


def require_job_slot(session: Session, settings: Settings) -> None:
    """Raises QUOTA_JOBS (429) when the project has as many unfinished jobs as it may."""
    allowed = settings.quota_unfinished_jobs
    if not allowed:
        return
    repository.lock_project(session)
    used = repository.count_unfinished_jobs(session, allowed)
    if used >= allowed:
        detail = f"The project has {used} unfinished jobs and may have {allowed}. Wait for one to end, or cancel one."
        headers = {
            "RateLimit-Policy": f'"unfinished-jobs";q={allowed}',
            "RateLimit": '"unfinished-jobs";r=0',
            "Retry-After": "10",
        }
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "QUOTA_JOBS", detail, headers=headers)


def require_room(session: Session, settings: Settings, more_bytes: int) -> None:
    """Raises QUOTA_BYTES (413) when the project's files and these would be more than it may have.

    Not 429, which clients answer by trying again: time makes no room.
    """
    if settings.quota_stored_bytes:
        repository.lock_project(session)
        _compare(session, settings.quota_stored_bytes, more_bytes)


def _look_for_room(request: Request, context: RequestContext) -> None:
    """Refuse a body for which there is no room before a byte of it is read. `require_room` has the last word."""
    allowed, declared = context.settings.quota_stored_bytes, request.headers.get("content-length", "")
    if allowed:
        more_bytes = max(int(declared or 0) - _FORM_BYTES, 0)
        own = context.principal.project
        Ledger(context.database).read(lambda session: _compare(session, allowed, more_bytes), own)


RoomForBody = Depends(_look_for_room)
"""For the `dependencies` of a route that takes a file."""


def _compare(session: Session, allowed: int, more_bytes: int) -> None:
    used = repository.sum_stored_bytes(session)
    if used + more_bytes > allowed:
        detail = f"The project has {used} bytes of the {allowed} that it may have: {more_bytes} more do not fit."
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "QUOTA_BYTES", f"{detail} Delete what is not needed.")
