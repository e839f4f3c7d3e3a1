"""HTTP of the audit log: list."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.audit import repository
from app.audit.schemas import AuditEvent, AuditQuery
from app.context import RequestContext
from app.db.page import Page

router = APIRouter(prefix="/v1/audit", tags=["keys"])


@router.get("")
def list_audit_events(context: RequestContext, wanted: Annotated[AuditQuery, Query()]) -> Page[AuditEvent]:
    """What keys of the project did, and what they were refused, newest first."""
    with context.read() as session:
        rows, has_more = repository.fetch(session, wanted)
        data = [AuditEvent.model_validate(row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)
