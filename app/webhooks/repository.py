"""Queries on webhooks and their log, and the outbox: what is told is written with what happened. Nothing is sent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.orm import Session

from app.contracts.webhooks import WebhookEvent
from app.db.base import utc_now
from app.db.clock import SWEPT_MOST, now
from app.db.ids import new_id
from app.db.page import PageQuery, fetch_page
from app.webhooks.tables import DeliveryAttemptRow, DeliveryRow, WebhookRow

Data = Mapping[str, Any]

_LISTENING = (
    select(WebhookRow.id, WebhookRow.events)
    .where(WebhookRow.project == bindparam("project"), WebhookRow.disabled_at.is_(None))
    # Whoever deletes one waits until what it was told of is committed.
    .with_for_update(read=True, key_share=True)
)


def publish(session: Session, project: str, type_: WebhookEvent, describe: Callable[[], Data]) -> None:
    """Have the project's webhooks told of an event, if the transaction commits. `describe` is called if one listens."""
    listening = session.connection().execute(_LISTENING, {"project": project}).all()
    wanted = [webhook_id for webhook_id, events in listening if not events or type_ in events]
    if wanted:
        enqueue(session, project, wanted, type_, describe())


def enqueue(session: Session, project: str, webhook_ids: Iterable[str], type_: str, data: Data) -> list[str]:
    """One event, to be delivered to each of these webhooks; gives the deliveries' ids."""
    payload = to_json({"type": type_, "timestamp": utc_now(), "data": data}).decode()
    event_id = new_id("evt")
    return [_insert(session, project, webhook_id, (event_id, type_, payload)) for webhook_id in webhook_ids]


def enqueue_again(session: Session, delivery: DeliveryRow) -> str:
    """A new delivery of the same event; gives its id."""
    same = (delivery.event_id, delivery.type, delivery.payload)
    return _insert(session, delivery.project, delivery.webhook_id, same)


def _insert(session: Session, project: str, webhook_id: str, event: tuple[str, str, str]) -> str:
    event_id, type_, payload = event
    delivery_id = new_id("dlv")
    session.connection().execute(
        insert(DeliveryRow).values(
            id=delivery_id,
            project=project,
            webhook_id=webhook_id,
            event_id=event_id,
            type=type_,
            payload=payload,
            attempts=0,
            next_at=now(session),
            created_at=utc_now(),
        )
    )
    return delivery_id


def add(session: Session, row: WebhookRow) -> None:
    """Insert."""
    session.add(row)
    session.flush()


def remove(session: Session, row: WebhookRow) -> None:
    """Delete, with the log."""
    session.execute(delete(WebhookRow).where(WebhookRow.id == row.id))


def get(session: Session, webhook_id: str) -> WebhookRow | None:
    """By id."""
    return session.get(WebhookRow, webhook_id)


def count(session: Session) -> int:
    """How many webhooks the session's project has."""
    return session.scalar(select(func.count(WebhookRow.id))) or 0


def fetch(session: Session, wanted: PageQuery) -> tuple[list[WebhookRow], bool]:
    """A page, newest first, and whether there are more."""
    return fetch_page(session, select(WebhookRow), WebhookRow.id, after=wanted.after, limit=wanted.limit)


def get_delivery(session: Session, webhook_id: str, delivery_id: str) -> DeliveryRow | None:
    """By id, if it is this webhook's."""
    row = session.get(DeliveryRow, delivery_id)
    return row if row is not None and row.webhook_id == webhook_id else None


def fetch_deliveries(session: Session, webhook_id: str, wanted: PageQuery) -> tuple[list[DeliveryRow], bool]:
    """A page of a webhook's log, newest first, and whether there are more."""
    query = select(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id)
    return fetch_page(session, query, DeliveryRow.id, after=wanted.after, limit=wanted.limit)


def tries_of(session: Session, delivery_ids: Sequence[str]) -> Sequence[DeliveryAttemptRow]:
    """Every try of these deliveries, in order."""
    query = select(DeliveryAttemptRow).where(DeliveryAttemptRow.delivery_id.in_(delivery_ids))
    return session.scalars(query.order_by(DeliveryAttemptRow.delivery_id, DeliveryAttemptRow.number)).all()


def forget_deliveries(session: Session, before: datetime) -> int:
    """Delete some of the deliveries made before `before` that no one tries any more; 0: none is left."""
    old = select(DeliveryRow.id).where(DeliveryRow.created_at < before, DeliveryRow.next_at.is_(None))
    ids = session.scalars(old.limit(SWEPT_MOST)).all()
    if ids:
        session.execute(delete(DeliveryRow).where(DeliveryRow.id.in_(ids)))
    return len(ids)
