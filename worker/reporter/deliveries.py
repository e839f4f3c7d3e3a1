"""Webhook deliveries as the sender sees them: taking what is due, and reporting what came of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.database import Database
from app.db.patience import Ledger
from app.settings import Settings
from app.webhooks import outbox
from app.webhooks.tables import DeliveryRow, WebhookRow
from worker.webhooks.schedule import Outcome, find_wait

LEASE_S = 60.0
"""A try that has not ended by then is made again: its sender was killed."""
FAILING_MOST = timedelta(days=5)
"""A webhook that fails for so long without one success is disabled."""
OLD_SECRET = timedelta(hours=24)
"""How long what is sent is signed with the secret before the last rotation, too."""
AT_ONCE = 4
"""Requests one sender has open to one webhook, so that a slow one holds up no other."""

_LOOKED_AT = 100
_MAX_ERROR = 300

_log = structlog.get_logger(__name__)

Due = Row[str, str, datetime | None]


@dataclass(frozen=True)
class Delivery:
    """A try that was begun. `attempt` is its token."""

    id: str
    webhook_id: str
    attempt: int
    event_id: str
    payload: str
    url: str
    secrets: tuple[str, ...]


class Deliveries:
    """The outbox of every project. Two senders at once do no harm: each takes what the other has not."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.database)
        # Longer makes no sense: by then the lease is gone and another sender may have it.
        self._ledger = Ledger(self._database, LEASE_S)

    def take(self, open_now: Mapping[str, int], limit: int) -> list[Delivery]:
        """Up to `limit` deliveries that are due, begun. `open_now` is how many this sender has open by webhook.

        Raises the driver's error, without patience.
        """
        full = [webhook_id for webhook_id, count in open_now.items() if count >= AT_ONCE]
        with self._database.read() as session:
            if not outbox.find_due(session, full, 1):
                return []
        with self._database.write() as session:
            due = outbox.hold_due(session, full, _LOOKED_AT)
            _drop_disabled(session, due)
            chosen = _choose((each for each in due if each.disabled_at is None), open_now, limit)
            return [_describe(delivery, webhook) for delivery, webhook in outbox.take(session, chosen, LEASE_S)]

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Report what came of a try, once the database is there. A long outage is raised; then it is sent again."""
        self._ledger.write(lambda session: _settle(session, delivery, outcome))

    def close(self) -> None:
        """Close every connection."""
        self._database.close()


def _drop_disabled(session: Session, due: Iterable[Due]) -> None:
    if disabled := [each.id for each in due if each.disabled_at is not None]:
        outbox.give_up(session, DeliveryRow.id.in_(disabled))


def _choose(due: Iterable[Due], open_now: Mapping[str, int], limit: int) -> list[str]:
    """Ids of those that fit: no webhook has more than AT_ONCE open."""
    open_then = Counter(open_now)
    chosen: list[str] = []
    for each in due:
        if open_then[each.webhook_id] < AT_ONCE and len(chosen) < limit:
            open_then[each.webhook_id] += 1
            chosen.append(each.id)
    return chosen


def _describe(delivery: DeliveryRow, webhook: WebhookRow) -> Delivery:
    secrets: tuple[str, ...] = (webhook.secret,)
    if webhook.previous_secret and webhook.rotated_at and utc_now() < webhook.rotated_at + OLD_SECRET:
        secrets = (webhook.secret, webhook.previous_secret)
    return Delivery(
        id=delivery.id,
        webhook_id=webhook.id,
        attempt=delivery.attempts,
        event_id=delivery.event_id,
        payload=delivery.payload,
        url=webhook.url,
        secrets=secrets,
    )


def _settle(session: Session, delivery: Delivery, outcome: Outcome) -> None:
    webhook = outbox.lock_webhook(session, delivery.webhook_id)
    wait_s = find_wait(outbox.count_tries(session, delivery.id) + 1, outcome)
    is_ours = outbox.settle(session, delivery.id, delivery.attempt, wait_s, delivered=outcome.is_delivered)
    if webhook is None or not is_ours:
        return  # it was deleted, or sent again by another
    error = outcome.error and outcome.error[:_MAX_ERROR]
    tried = {"status": outcome.status, "error": error, "seconds": outcome.seconds}
    outbox.record_try(session, delivery.id, delivery.attempt, tried)
    _judge(session, webhook, outcome, utc_now())


def _judge(session: Session, webhook: WebhookRow, outcome: Outcome, at: datetime) -> None:
    """Keep whether the webhook works, and disable one that never will."""
    if outcome.is_delivered:
        webhook.failing_since = None
        return
    webhook.failing_since = webhook.failing_since or at
    if outcome.is_gone:
        _disable(session, webhook, at, "its receiver answered 410 Gone")
    elif at - webhook.failing_since >= FAILING_MOST:
        _disable(session, webhook, at, f"nothing arrived for {FAILING_MOST.days} days")


def _disable(session: Session, webhook: WebhookRow, at: datetime, reason: str) -> None:
    _log.warning("a webhook was disabled", id=webhook.id, reason=reason)
    webhook.disabled_at, webhook.disabled_reason = at, reason
    outbox.give_up(session, DeliveryRow.webhook_id == webhook.id)
