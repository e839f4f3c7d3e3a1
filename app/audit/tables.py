"""The table of audit events."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, UtcTime, utc_now
from app.db.tenancy import ProjectOwned


class AuditRow(ProjectOwned, Base):
    """Who did what to which resource, and from where."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_project_id", "project", "id"),)

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    key_id: Mapped[str | None] = mapped_column(String(30))
    action: Mapped[str] = mapped_column(String(64))
    target: Mapped[str | None] = mapped_column(String(128))
    request_id: Mapped[str | None] = mapped_column(String(128))
    address: Mapped[str | None] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
