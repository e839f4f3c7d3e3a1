"""Deliveries as rows: taken once, leased, given up, and never lost when their sender is."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from app.db.base import utc_now
from app.settings import Settings
from app.webhooks import service
from app.webhooks.tables import DeliveryRow
from worker.reporter.deliveries import FAILING_MOST, LEASE_S, OLD_SECRET, Deliveries
from worker.webhooks import request
from worker.webhooks.schedule import JITTER, WAITS_S, Outcome

Until = Callable[[Callable[[], object]], None]
DELIVERED = Outcome(204, None, 0.01)
FAILED = Outcome(500, None, 0.01)
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_rotated_secret_signs_for_a_day(hooks: Any, deliveries: Deliveries) -> None:
    webhook = hooks.add("http://127.0.0.1:9")
    with hooks.database.write("default") as session:
        _, renewed = service.rotate_secret(session, webhook.id)
    hooks.ping(webhook)
    [delivery] = deliveries.take({}, 10)
    headers = request.sign(delivery, utc_now())
    for secret in (webhook.secret, renewed):
        assert Webhook(secret).verify(delivery.payload, headers)["type"] == "ping"
    hooks.change(webhook, rotated_at=utc_now() - OLD_SECRET)
    hooks.ping(webhook)
    [delivery] = deliveries.take({}, 10)
    assert delivery.secrets == (renewed,)


def test_two_senders_take_each_delivery_once(hooks: Any, settings: Settings, deliveries: Deliveries) -> None:
    made = [hooks.ping(hooks.add("http://127.0.0.1:9")) for _ in range(8)]
    other = Deliveries(settings)
    taken = [each.id for sender in (deliveries, other) for each in sender.take({}, 5)]
    other.close()
    assert sorted(taken) == sorted(made)
    assert deliveries.take({}, 10) == []


def test_a_killed_senders_delivery_is_made_again_and_its_late_report_counts_for_nothing(
    hooks: Any, deliveries: Deliveries
) -> None:
    id_ = hooks.ping(hooks.add("http://127.0.0.1:9"))
    [lost] = deliveries.take({}, 10)
    assert deliveries.take({}, 10) == []
    row = hooks.delivery(id_)
    assert row.next_at
    assert row.next_at - utc_now() <= timedelta(seconds=LEASE_S)
    hooks.let_time_pass(id_)
    [again] = deliveries.take({}, 10)
    assert (again.event_id, again.attempt) == (lost.event_id, lost.attempt + 1)
    deliveries.settle(lost, FAILED)
    assert hooks.tries(id_) == []
    deliveries.settle(again, DELIVERED)
    assert hooks.tries(id_) == [(204, None)]
    assert hooks.delivery(id_).next_at is None


def test_a_delivery_is_given_up_after_its_last_try(hooks: Any, deliveries: Deliveries) -> None:
    webhook = hooks.add("http://127.0.0.1:9")
    id_ = hooks.ping(webhook)
    for wait_s in (*WAITS_S, None):
        [delivery] = deliveries.take({}, 10)
        deliveries.settle(delivery, FAILED)
        next_at = hooks.delivery(id_).next_at
        if wait_s is None:
            assert next_at is None
        else:
            assert next_at
            assert timedelta(0, wait_s - 5) < next_at - utc_now() <= timedelta(seconds=wait_s * (1 + JITTER))
            hooks.let_time_pass(id_)
    assert deliveries.take({}, 10) == []
    assert len(hooks.tries(id_)) == len(WAITS_S) + 1
    assert hooks.find(webhook).disabled_at is None


def test_who_fails_for_days_is_disabled(hooks: Any, deliveries: Deliveries) -> None:
    webhook = hooks.add("http://127.0.0.1:9")
    for since, is_over in ((FAILING_MOST - timedelta(minutes=1), False), (FAILING_MOST, True)):
        hooks.change(webhook, failing_since=utc_now() - since)
        hooks.ping(webhook)
        [delivery] = deliveries.take({}, 10)
        deliveries.settle(delivery, FAILED)
        assert (hooks.find(webhook).disabled_at is not None) == is_over
    assert deliveries.take({}, 10) == []


def test_what_a_clock_set_too_far_ahead_is_sent(hooks: Any, deliveries: Deliveries) -> None:
    id_ = hooks.ping(hooks.add("http://127.0.0.1:9"))
    for ahead, is_due in ((timedelta(hours=10), False), (timedelta(days=400), True)):
        with hooks.database.write() as session:
            session.execute(update(DeliveryRow).values(next_at=utc_now() + ahead))
        assert [each.id for each in deliveries.take({}, 10)] == [id_] * is_due


def test_nothing_is_sent_to_who_was_disabled_or_deleted_meanwhile(hooks: Any, deliveries: Deliveries) -> None:
    disabled, deleted = hooks.add("http://127.0.0.1:9"), hooks.add("http://127.0.0.1:9")
    waiting = hooks.ping(disabled)
    hooks.change(disabled, disabled_at=utc_now(), disabled_reason="by hand")
    assert deliveries.take({}, 10) == []
    assert hooks.delivery(waiting).next_at is None
    hooks.ping(deleted)
    [under_way] = deliveries.take({}, 10)
    with hooks.database.write("default") as session:
        service.delete(session, deleted.id)
    deliveries.settle(under_way, DELIVERED)


@contextmanager
def started_beat(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    beat = subprocess.Popen([sys.executable, "-m", "worker", "beat"], env=environment)
    try:
        yield beat
    finally:
        beat.kill()
        beat.wait()


@on_one_database
def test_a_killed_beat_loses_nothing(hooks: Any, receiver: Any, until: Until, settings: Settings) -> None:
    environment = {
        **os.environ,
        "SLIMLINE_DATABASE_URL": settings.database,
        "SLIMLINE_BROKER_URL": settings.broker,
        "SLIMLINE_WEBHOOK_PRIVATE_TARGETS": "true",
    }
    receiver.answers["/hook"] = receiver.wait_open
    delivery = hooks.ping(hooks.add(f"{receiver.url}/hook"))
    with started_beat(environment) as beat:
        until(lambda: len(receiver.taken) == 1)
        beat.kill()
    hooks.let_time_pass(delivery)
    receiver.opened.set()
    with started_beat(environment) as beat:
        until(lambda: hooks.delivery(delivery).delivered_at)
        beat.terminate()
        assert beat.wait(20) == 0
    assert len(receiver.taken) == 2
    assert len({each["headers"]["webhook-id"] for each in receiver.taken}) == 1
    assert hooks.tries(delivery) == [(204, None)]
