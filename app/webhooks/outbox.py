"""Queries of the sender: what is due, taking it, and keeping what came of it. When to try again is not decided here."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, insert, or_, select, update
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.clock import asked_at, lease_end
from app.webhooks.tables import DeliveryAttemptRow, DeliveryRow, WebhookRow

FARTHEST = timedelta(hours=14)
"""No one waits longer: a try that is due later was set by a clock that was ahead."""


def find_due(session: Session, without: Iterable[str], limit: int) -> Sequence[Row[str, str, datetime | None]]:
    """Deliveries whose time has come, those of the webhooks `without` left out: id, webhook, when that was disabled."""
    return session.execute(_due(session, without).limit(limit)).all()


def hold_due(session: Session, without: Iterable[str], limit: int) -> Sequence[Row[str, str, datetime | None]]:
    """The same, and no one else gets them before the transaction ends."""
    query = _due(session, without).limit(limit)
    return session.execute(query.with_for_update(of=DeliveryRow, skip_locked=True)).all()


def _due(session: Session, without: Iterable[str]) -> Select[str, str, datetime | None]:
    query = select(DeliveryRow.id, DeliveryRow.webhook_id, WebhookRow.disabled_at).join(WebhookRow)
    return query.where(_is_due(session), DeliveryRow.webhook_id.not_in(list(without))).order_by(DeliveryRow.next_at)


def _is_due(session: Session) -> ColumnElement[bool]:
    return or_(DeliveryRow.next_at <= asked_at(session), DeliveryRow.next_at > asked_at(session) + FARTHEST)


def take(session: Session, delivery_ids: Sequence[str], lease_s: float) -> Sequence[Row[DeliveryRow, WebhookRow]]:
    """Begin a try of held deliveries. Until the lease ends no one else tries; `attempts` is the token."""
    values = {"attempts": DeliveryRow.attempts + 1, "next_at": lease_end(session, lease_s)}
    session.execute(update(DeliveryRow).where(DeliveryRow.id.in_(delivery_ids)).values(values))
    query = select(DeliveryRow, WebhookRow).join(WebhookRow).where(DeliveryRow.id.in_(delivery_ids))
    return session.execute(query.execution_options(populate_existing=True)).all()


def give_up(session: Session, which: ColumnElement[bool]) -> None:
    """Try these deliveries no more."""
    session.execute(update(DeliveryRow).where(DeliveryRow.next_at.is_not(None), which).values(next_at=None))


def lock_webhook(session: Session, webhook_id: str) -> WebhookRow | None:
    """The webhook as it is now, held until the transaction ends: of what is settled at once, one goes after another."""
    query = select(WebhookRow).where(WebhookRow.id == webhook_id).with_for_update(key_share=True)
    return session.scalar(query.execution_options(populate_existing=True))


def count_tries(session: Session, delivery_id: str) -> int:
    """How many tries came to an end. One whose sender was killed is not among them."""
    query = select(func.count()).where(DeliveryAttemptRow.delivery_id == delivery_id)
    return session.scalar(query) or 0


def settle(session: Session, delivery_id: str, attempt: int, wait_s: float | None, *, delivered: bool) -> bool:
    """A try is over; the next is in `wait_s`, None: there is none. False: too late, another sender has it."""
    values = {
        "next_at": None if wait_s is None else lease_end(session, wait_s),
        "delivered_at": utc_now() if delivered else None,
    }
    query = update(DeliveryRow).where(DeliveryRow.id == delivery_id, DeliveryRow.attempts == attempt)
    return session.scalar(query.values(values).returning(DeliveryRow.id)) is not None


def record_try(session: Session, delivery_id: str, attempt: int, columns: Mapping[str, Any]) -> None:
    """Keep what came of a try: status, error and seconds."""
    session.execute(insert(DeliveryAttemptRow).values(delivery_id=delivery_id, number=attempt, at=utc_now(), **columns))
