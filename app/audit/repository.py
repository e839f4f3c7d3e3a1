"""Writing and reading audit events. Every event is written here, in the transaction of what it tells of."""

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.audit.actor import who_acts
from app.audit.schemas import Action, AuditQuery
from app.audit.tables import AuditRow
from app.db.base import utc_now
from app.db.ids import new_id
from app.db.page import fetch_page
from app.db.tenancy import project_of


def record(session: Session, action: Action, target: str, *, project: str | None = None, **details: Any) -> None:
    """Write down that the one who acts did this, in `project` or the session's own.

    While the service is open nobody is known: then only what is done to keys is written down.
    """
    actor = who_acts()
    if actor.key_id is None and not action.is_about_keys:
        return
    values = {
        "id": new_id("evt"),
        "project": project or project_of(session),
        "at": utc_now(),
        "key_id": actor.key_id,
        "action": action.value,
        "target": target,
        "request_id": actor.request_id,
        "address": actor.address,
        "details": details,
    }
    session.connection().execute(insert(AuditRow), values)  # not the unit of work: submitting is a hot path


def fetch(session: Session, wanted: AuditQuery) -> tuple[list[AuditRow], bool]:
    """A page, newest first, and whether there are more."""
    query = select(AuditRow)
    if wanted.action is not None:
        query = query.where(AuditRow.action == wanted.action.value)
    if wanted.key is not None:
        query = query.where(AuditRow.key_id == wanted.key)
    return fetch_page(session, query, AuditRow.id, after=wanted.after, limit=wanted.limit)
