"""The tables of webhooks: where to send, what is to be sent, and each try."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.contracts.webhooks import MAX_URL
from app.db.base import Base, UtcTime, utc_now
from app.db.tenancy import ProjectOwned


class WebhookRow(ProjectOwned, Base):
    """A place to tell of events; no `events` are all. The secret signs what is sent, so it is kept as it is."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_project_id", "project", "id"),)

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    url: Mapped[str] = mapped_column(String(MAX_URL))
    description: Mapped[str | None] = mapped_column(String(200))
    events: Mapped[list[str]] = mapped_column(JSON, default=list)
    secret: Mapped[str] = mapped_column(String(100))
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    rotated_at: Mapped[datetime | None] = mapped_column(UtcTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcTime)
    disabled_reason: Mapped[str | None] = mapped_column(String(300))
    failing_since: Mapped[datetime | None] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)


class DeliveryRow(ProjectOwned, Base):
    """An event on its way to a webhook. `next_at` is when to try next; None: it arrived, or no one tries any more.

    While a try is under way, `next_at` is the end of the sender's lease and `attempts` the token of what it reports.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
        Index(
            "ix_webhook_deliveries_next_at",
            "next_at",
            sqlite_where=text("next_at IS NOT NULL"),
            postgresql_where=text("next_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(30))
    type: Mapped[str] = mapped_column(String(64))
    payload: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None] = mapped_column(UtcTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now, index=True)


class DeliveryAttemptRow(Base):
    """One try to deliver: what the other side answered, or why it did not."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(300))
    seconds: Mapped[float]
