"""Webhooks over HTTP: making them, their log, replay; what is told is written with what happened or not at all."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app.context import Context
from app.contracts.webhooks import WebhookEvent
from app.db.base import utc_now
from app.jobs import service
from app.jobs.tables import JobRow
from app.settings import Settings
from app.webhooks.repository import forget_deliveries
from app.webhooks.service import MAX_WEBHOOKS
from app.webhooks.tables import DeliveryRow, WebhookRow

URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private_targets": True})


@pytest.fixture
def make_webhook(client: httpx.Client) -> Callable[..., Any]:
    def make(**fields: Any) -> Any:
        answer = client.post("/v1/webhooks", json={"url": URL, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return make


@pytest.fixture
def submit(client: httpx.Client, make_model: Callable[..., str]) -> Callable[..., Any]:
    def post(**spec: Any) -> Any:
        recipe = [{"method": "quantize.dynamic"}]
        return client.post("/v1/jobs", json={"model": make_model(), "recipe": recipe, **spec}).json()

    return post


def log_of(client: httpx.Client, webhook: Any, **query: Any) -> Any:
    return client.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=query).json()


def test_the_secret_is_shown_once(client: httpx.Client, make_webhook: Callable[..., Any]) -> None:
    made = make_webhook(description="tells the build")
    assert made["secret"].startswith("whsec_")
    assert made["events"] == list(WebhookEvent)
    assert made["state"] == "enabled"
    shown = client.get(f"/v1/webhooks/{made['id']}")
    assert shown.json() == {name: value for name, value in made.items() if name != "secret"}
    assert made["secret"] not in client.get("/v1/webhooks").text
    rotated = client.post(f"/v1/webhooks/{made['id']}/rotate-secret").json()
    assert rotated["secret"] not in ("", made["secret"])


def test_the_list_has_pages_newest_first(client: httpx.Client, make_webhook: Callable[..., Any]) -> None:
    made = [make_webhook()["id"] for _ in range(3)]
    first = client.get("/v1/webhooks?limit=2").json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (made[:0:-1], True)
    second = client.get("/v1/webhooks", params={"limit": 2, "after": first["next"]}).json()
    assert ([each["id"] for each in second["data"]], second["has_more"]) == (made[:1], False)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "ftp://example.com"}, "WEBHOOK_URL_INVALID"),
        ({"url": URL, "events": []}, "INVALID_REQUEST"),
        ({"url": URL, "events": ["job.exploded"]}, "INVALID_REQUEST"),
        ({"url": URL, "events": ["ping"]}, "INVALID_REQUEST"),
        ({"url": URL, "secret": "whsec_mine"}, "INVALID_REQUEST"),
        ({"url": f"{URL}/{'a' * 2000}"}, "INVALID_REQUEST"),
        ({"url": URL, "description": "\0"}, "INVALID_REQUEST"),
        ({}, "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_is_refused(client: httpx.Client, body: dict[str, Any], code: str) -> None:
    answer = client.post("/v1/webhooks", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_project_has_so_many_and_no_more(client: httpx.Client, make_webhook: Callable[..., Any]) -> None:
    first, *_ = [make_webhook() for _ in range(MAX_WEBHOOKS)]
    answer = client.post("/v1/webhooks", json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (409, "TOO_MANY_WEBHOOKS")
    assert client.delete(f"/v1/webhooks/{first['id']}").status_code == 204
    make_webhook()


def test_a_repeated_request_makes_one(client: httpx.Client) -> None:
    answers = [
        client.post("/v1/webhooks", json={"url": URL}, headers={"Idempotency-Key": "same"}).json() for _ in range(2)
    ]
    assert answers[0]["secret"].startswith("whsec_")
    assert answers[1] == {**answers[0], "secret": None}  # it lies in no kept answer
    assert len(client.get("/v1/webhooks").json()["data"]) == 1


def test_a_job_is_told_of_once_to_whoever_listens(
    client: httpx.Client, make_webhook: Callable[..., Any], submit: Callable[..., Any]
) -> None:
    everything, cancelled = make_webhook(), make_webhook(events=["job.cancelled"])
    job = submit(name="mine")
    client.post(f"/v1/jobs/{job['id']}/cancel")
    told, chosen = (log_of(client, webhook)["data"] for webhook in (everything, cancelled))
    assert [each["type"] for each in told] == ["job.cancelled", "job.queued"]
    assert [each["type"] for each in chosen] == ["job.cancelled"]
    assert told[0]["event"] == chosen[0]["event"] != told[1]["event"]
    assert {each["state"] for each in told} == {"pending"}
    payload = told[0]["payload"]
    assert payload.keys() == {"type", "timestamp", "data"}
    assert payload["data"]["id"] == job["id"]
    assert payload["data"] | {"state": "cancelled", "name": "mine", "artifacts": [], "verdict": None} == payload["data"]
    assert payload["data"]["links"]["self"] == f"/v1/jobs/{job['id']}"


def test_what_is_rolled_back_is_not_told(
    client: httpx.Client, context: Context, make_webhook: Callable[..., Any], submit: Callable[..., Any]
) -> None:
    webhook, job = make_webhook(), submit()
    before = log_of(client, webhook)["data"]
    with suppress(RuntimeError), context.database.write("default") as session:
        service.cancel(session, job["id"])
        assert session.scalars(select(DeliveryRow.type).order_by(DeliveryRow.id)).all()[-1] == "job.cancelled"
        raise RuntimeError
    assert log_of(client, webhook)["data"] == before
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "queued"


def test_another_projects_webhook_hears_nothing_and_is_not_found(
    client: httpx.Client, context: Context, submit: Callable[..., Any]
) -> None:
    with context.database.write("other") as session:
        session.add(WebhookRow(id="whk_other", project="other", url=URL, secret="whsec_b3RoZXI="))
    submit()
    with context.database.read() as session:
        assert session.scalars(select(DeliveryRow)).all() == []
    paths = ["", "/deliveries"]
    assert {client.get(f"/v1/webhooks/whk_other{path}").status_code for path in paths} == {404}
    assert {client.post(f"/v1/webhooks/whk_other/{what}").status_code for what in ("test", "enable")} == {404}
    assert client.delete("/v1/webhooks/whk_other").status_code == 404


def test_a_replay_is_a_new_delivery_of_the_same_event(client: httpx.Client, make_webhook: Callable[..., Any]) -> None:
    webhook = make_webhook()
    ping = client.post(f"/v1/webhooks/{webhook['id']}/test")
    assert (ping.status_code, ping.json()["type"]) == (202, "ping")
    answer = client.post(f"{ping.json()['links']['self']}/replay")
    again = client.get(answer.headers["Location"]).json()
    assert answer.status_code == 202
    assert again["id"] != ping.json()["id"]
    assert (again["event"], again["payload"]) == (ping.json()["event"], ping.json()["payload"])
    missing = client.post(f"/v1/webhooks/{webhook['id']}/deliveries/dlv_none/replay")
    assert (missing.status_code, missing.json()["code"]) == (404, "DELIVERY_NOT_FOUND")


def test_a_disabled_webhook_is_not_told_until_it_is_enabled(
    client: httpx.Client, context: Context, make_webhook: Callable[..., Any], submit: Callable[..., Any]
) -> None:
    webhook = make_webhook()
    with context.database.write() as session:
        session.execute(update(WebhookRow).values(disabled_at=utc_now(), disabled_reason="it was gone"))
    submit()
    assert log_of(client, webhook)["data"] == []
    refused = client.post(f"/v1/webhooks/{webhook['id']}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "WEBHOOK_DISABLED")
    assert client.post(f"/v1/webhooks/{webhook['id']}/enable").json()["state"] == "enabled"
    submit()
    assert len(log_of(client, webhook)["data"]) == 1


def test_the_log_has_pages_and_goes_with_the_webhook(
    client: httpx.Client, context: Context, make_webhook: Callable[..., Any], submit: Callable[..., Any]
) -> None:
    webhook = make_webhook()
    jobs = [submit()["id"] for _ in range(3)]
    page = log_of(client, webhook, limit=2)
    rest = log_of(client, webhook, limit=2, after=page["next"])
    told = [each["payload"]["data"]["id"] for each in page["data"] + rest["data"]]
    assert (told, page["has_more"], rest["has_more"]) == (jobs[::-1], True, False)
    assert client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
    with context.database.read() as session:
        assert session.scalars(select(DeliveryRow)).all() == []


def test_old_deliveries_are_forgotten_but_not_those_under_way(
    client: httpx.Client, context: Context, make_webhook: Callable[..., Any], submit: Callable[..., Any]
) -> None:
    webhook = make_webhook()
    done, under_way = submit()["id"], submit()["id"]
    old = utc_now() - timedelta(days=31)
    with context.database.write() as session:
        session.execute(update(DeliveryRow).values(created_at=old))
        session.execute(update(DeliveryRow).where(DeliveryRow.payload.contains(done)).values(next_at=None))
        assert forget_deliveries(session, utc_now() - timedelta(days=30)) == 1
        assert forget_deliveries(session, utc_now() - timedelta(days=30)) == 0
    [left] = log_of(client, webhook)["data"]
    assert left["payload"]["data"]["id"] == under_way


def test_without_a_webhook_nothing_is_written(context: Context, submit: Callable[..., Any]) -> None:
    submit()
    with context.database.read() as session:
        assert len(session.scalars(select(JobRow)).all()) == 1
        assert session.scalars(select(DeliveryRow)).all() == []
