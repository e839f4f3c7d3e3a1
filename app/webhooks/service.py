"""What may be done with webhooks, and how they and their log are shown. No SQL and no HTTP here."""

import base64
import json
import secrets
from collections import defaultdict
from collections.abc import Sequence
from http import HTTPStatus

from sqlalchemy.orm import Session

from app.audit.repository import record
from app.audit.schemas import Action
from app.contracts.failure import SlimlineError
from app.contracts.webhooks import PING, WebhookEvent
from app.db.base import utc_now
from app.db.ids import new_id
from app.db.tenancy import project_of
from app.errors import Problem, not_found, unprocessable
from app.settings import Settings
from app.webhooks import repository
from app.webhooks.schemas import (
    DeliveryState,
    DeliveryView,
    Try,
    WebhookSpec,
    WebhookState,
    WebhookView,
    WebhookWithSecret,
)
from app.webhooks.tables import DeliveryAttemptRow, DeliveryRow, WebhookRow
from app.webhooks.target import check_target

MAX_WEBHOOKS = 20
"""Webhooks of one project: what happens is written once for each."""
SECRET_BYTES = 32


async def require_target(url: str, settings: Settings) -> None:
    """Raises WEBHOOK_URL_INVALID and WEBHOOK_TARGET_PRIVATE, as problems of the field."""
    try:
        await check_target(url, allow_private=settings.webhook_private_targets)
    except SlimlineError as error:
        failure = error.failure
        message = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
        raise unprocessable("/url", failure.code, message) from None


def create(session: Session, spec: WebhookSpec) -> tuple[WebhookWithSecret, str]:
    """A webhook of a URL that was checked, and its secret. Raises TOO_MANY_WEBHOOKS (409)."""
    if repository.count(session) >= MAX_WEBHOOKS:
        detail = f"A project has at most {MAX_WEBHOOKS} webhooks. Delete one that is not needed."
        raise Problem(HTTPStatus.CONFLICT, "TOO_MANY_WEBHOOKS", detail)
    row = WebhookRow(
        id=new_id("whk"),
        project=project_of(session),
        url=spec.url,
        description=spec.description,
        events=list(dict.fromkeys(spec.events or ())),
        secret=_new_secret(),
    )
    repository.add(session, row)
    record(session, Action.WEBHOOK_MADE, row.id)
    return with_secret(row)


def rotate_secret(session: Session, webhook_id: str) -> tuple[WebhookWithSecret, str]:
    """Replace the secret; gives the new one, too. For a day what is sent has a signature by the old one, too."""
    row = find(session, webhook_id)
    row.previous_secret, row.secret, row.rotated_at = row.secret, _new_secret(), utc_now()
    record(session, Action.WEBHOOK_CHANGED, row.id)
    return with_secret(row)


def enable(session: Session, webhook_id: str) -> WebhookView:
    """Send events again. Those of the time between were not kept for it."""
    row = find(session, webhook_id)
    row.disabled_at = row.disabled_reason = row.failing_since = None
    record(session, Action.WEBHOOK_CHANGED, row.id)
    return view(row)


def delete(session: Session, webhook_id: str) -> None:
    """Delete a webhook and its log."""
    repository.remove(session, find(session, webhook_id))
    record(session, Action.WEBHOOK_DELETED, webhook_id)


def ping(session: Session, webhook_id: str) -> DeliveryView:
    """Have a test event sent. Raises WEBHOOK_DISABLED (409)."""
    row = _find_enabled(session, webhook_id)
    [delivery_id] = repository.enqueue(session, row.project, [row.id], PING, {"webhook": row.id})
    return view_delivery(session, webhook_id, delivery_id)


def replay(session: Session, webhook_id: str, delivery_id: str) -> DeliveryView:
    """Send an event once more, under its old id, as a new delivery. Raises WEBHOOK_DISABLED (409)."""
    _find_enabled(session, webhook_id)
    again = repository.enqueue_again(session, _find_delivery(session, webhook_id, delivery_id))
    return view_delivery(session, webhook_id, again)


def find(session: Session, webhook_id: str) -> WebhookRow:
    """The webhook. Raises the 404 problem."""
    row = repository.get(session, webhook_id)
    if row is None:
        raise not_found("webhook", webhook_id)
    return row


def view(row: WebhookRow) -> WebhookView:
    """The webhook as the API shows it."""
    return WebhookView.model_validate(_fields(row))


def with_secret(row: WebhookRow) -> tuple[WebhookWithSecret, str]:
    """The same, and apart from it the secret, which only the first answer has."""
    return WebhookWithSecret.model_validate({**_fields(row), "secret": None}), row.secret


def view_delivery(session: Session, webhook_id: str, delivery_id: str) -> DeliveryView:
    """A delivery as the API shows it. Raises the 404 problem."""
    [shown] = view_deliveries(session, [_find_delivery(session, webhook_id, delivery_id)])
    return shown


def view_deliveries(session: Session, rows: Sequence[DeliveryRow]) -> list[DeliveryView]:
    """Deliveries with their tries."""
    tries: dict[str, list[DeliveryAttemptRow]] = defaultdict(list)
    for each in repository.tries_of(session, [row.id for row in rows]):
        tries[each.delivery_id].append(each)
    return [_view_delivery(row, tries[row.id]) for row in rows]


def _find_enabled(session: Session, webhook_id: str) -> WebhookRow:
    row = find(session, webhook_id)
    if row.disabled_at is not None:
        detail = f"The webhook is disabled: {row.disabled_reason}. POST /v1/webhooks/{row.id}/enable first."
        raise Problem(HTTPStatus.CONFLICT, "WEBHOOK_DISABLED", detail)
    return row


def _find_delivery(session: Session, webhook_id: str, delivery_id: str) -> DeliveryRow:
    find(session, webhook_id)
    row = repository.get_delivery(session, webhook_id, delivery_id)
    if row is None:
        detail = f"This webhook has no delivery {delivery_id[:64]!r}. GET /v1/webhooks/{webhook_id}/deliveries."
        raise Problem(HTTPStatus.NOT_FOUND, "DELIVERY_NOT_FOUND", detail)
    return row


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _fields(row: WebhookRow) -> dict[str, object]:
    own = f"/v1/webhooks/{row.id}"
    return {
        **{name: getattr(row, name) for name in _COPIED},
        "events": row.events or list(WebhookEvent),
        "state": WebhookState.DISABLED if row.disabled_at else WebhookState.ENABLED,
        "links": {
            "self": own,
            **{name: f"{own}/{name}" for name in ("deliveries", "test", "enable", "rotate-secret")},
        },
    }


_COPIED = ("id", "url", "description", "disabled_at", "disabled_reason", "failing_since", "created_at")


def _view_delivery(row: DeliveryRow, tries: Sequence[DeliveryAttemptRow]) -> DeliveryView:
    own = f"/v1/webhooks/{row.webhook_id}/deliveries/{row.id}"
    return DeliveryView.model_validate({
        **{name: getattr(row, name) for name in ("id", "type", "created_at", "delivered_at")},
        "webhook": row.webhook_id,
        "event": row.event_id,
        "state": _state(row),
        "payload": json.loads(row.payload),
        "next_try_at": row.next_at,
        "tries": [Try.model_validate(each, from_attributes=True) for each in tries],
        "links": {"self": own, "replay": f"{own}/replay"},
    })  # fmt: skip


def _state(row: DeliveryRow) -> DeliveryState:
    if row.delivered_at is not None:
        return DeliveryState.DELIVERED
    return DeliveryState.FAILED if row.next_at is None else DeliveryState.PENDING
