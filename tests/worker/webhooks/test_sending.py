"""Sending webhooks to a real receiver: signed, tried again, to no private target, held up by no one."""

import subprocess
import threading
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from app.contracts.events import ArtifactFile, Finished
from app.contracts.failure import Failure, FaultKind
from app.contracts.states import IngestState
from app.db.base import utc_now
from app.settings import Settings
from app.webhooks.tables import DeliveryRow
from worker.reporter import Reporter
from worker.reporter.deliveries import AT_ONCE
from worker.webhooks import request
from worker.webhooks.schedule import JITTER, WAITS_S
from worker.webhooks.sender import sending

Until = Callable[[Callable[[], object]], None]
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what is about requests, not about rows."""


@pytest.mark.usefixtures("sender")
def test_what_is_sent_is_signed_and_tells_of_the_job(
    bench: Any, hooks: Any, reporter: Reporter, receiver: Any, until: Until
) -> None:
    webhook = hooks.add(f"{receiver.url}/hook")
    job = bench.submit(name="mine")
    attempt = reporter.claim_job(job)
    assert attempt
    file = ArtifactFile(format="onnx", path="slim.onnx", filename="slim.onnx", sha256="0" * 64, size_bytes=1)
    attempt.succeed(
        Finished(artifacts=[file], layers=[], verdict=None, device="cpu", versions={}, engine_s=0, notes=[])
    )
    until(lambda: len(receiver.taken) == 3)
    told = [Webhook(webhook.secret).verify(each["body"], each["headers"]) for each in receiver.taken]
    by_type = {each["type"]: each["data"] for each in told}
    assert by_type.keys() == {"job.queued", "job.running", "job.succeeded"}
    done = by_type["job.succeeded"]
    assert (done["id"], done["state"], done["name"]) == (job, "succeeded", "mine")
    assert done["artifacts"] == [row.id for row in bench.artifacts(job)]
    assert len({each["headers"]["webhook-id"] for each in receiver.taken}) == 3
    assert {each["headers"]["user-agent"].partition("/")[0] for each in receiver.taken} == {"Slimline"}


@pytest.mark.usefixtures("sender")
def test_uploads_are_told_of(bench: Any, hooks: Any, reporter: Reporter, receiver: Any, until: Until) -> None:
    webhook = hooks.add(receiver.url)
    model = bench.upload(state=IngestState.UPLOADED)
    attempt = reporter.claim_model(model)
    assert attempt
    attempt.fail(Failure(kind=FaultKind.USER, code="MODEL_TRUNCATED", message="it ends in the middle"))
    until(lambda: receiver.taken)
    [told] = [Webhook(webhook.secret).verify(each["body"], each["headers"]) for each in receiver.taken]
    assert (told["type"], told["data"]["id"]) == ("model.rejected", model)
    assert told["data"]["problem"]["code"] == "MODEL_TRUNCATED"


@pytest.mark.usefixtures("sender")
def test_a_failure_is_tried_again_under_the_same_id(hooks: Any, receiver: Any, until: Until) -> None:
    receiver.answers["/hook"] = receiver.say(500)
    webhook = hooks.add(f"{receiver.url}/hook")
    delivery = hooks.ping(webhook)
    until(lambda: hooks.tries(delivery))
    row = hooks.delivery(delivery)
    assert row.next_at
    assert timedelta() < row.next_at - utc_now() <= timedelta(seconds=WAITS_S[0] * (1 + JITTER))
    assert hooks.find(webhook).failing_since

    receiver.answers["/hook"] = receiver.say(204)
    hooks.let_time_pass(delivery)
    until(lambda: hooks.delivery(delivery).delivered_at)
    assert hooks.tries(delivery) == [(500, None), (204, None)]
    assert len({each["headers"]["webhook-id"] for each in receiver.taken}) == 1
    assert len({each["body"] for each in receiver.taken}) == 1
    row = hooks.delivery(delivery)
    assert (row.next_at, hooks.find(webhook).failing_since) == (None, None)


def test_who_is_gone_is_told_nothing_more(hooks: Any, receiver: Any, until: Until, settings: Settings) -> None:
    receiver.answers["/hook"] = receiver.say(410)
    webhook = hooks.add(f"{receiver.url}/hook")
    waiting = hooks.ping(webhook)
    with hooks.database.write() as session:
        later = utc_now() + timedelta(hours=1)
        session.execute(update(DeliveryRow).values(next_at=later))
    delivery = hooks.ping(webhook)
    with sending(threading.Event(), settings):
        until(lambda: hooks.find(webhook).disabled_at)
    assert "410" in (hooks.find(webhook).disabled_reason or "")
    assert (hooks.tries(delivery), hooks.tries(waiting)) == ([(410, None)], [])
    assert [hooks.delivery(each).next_at for each in (delivery, waiting)] == [None, None]


@pytest.mark.usefixtures("sender")
def test_a_slow_receiver_holds_up_no_other(hooks: Any, receiver: Any, until: Until) -> None:
    receiver.answers["/slow"] = receiver.wait_open
    slow, quick = hooks.add(f"{receiver.url}/slow"), hooks.add(f"{receiver.url}/quick")
    held_up = [hooks.ping(slow) for _ in range(3 * AT_ONCE)]
    until(lambda: len(receiver.at("/slow")) == AT_ONCE)
    for _ in range(10):
        hooks.ping(quick)
    until(lambda: len(receiver.at("/quick")) == 10)
    assert len(receiver.at("/slow")) == AT_ONCE
    receiver.opened.set()
    until(lambda: all(hooks.delivery(each).delivered_at for each in held_up))
    assert len(receiver.at("/slow")) == 3 * AT_ONCE  # each once


@on_one_database
@pytest.mark.usefixtures("sender")
def test_a_redirect_is_not_followed(hooks: Any, receiver: Any, until: Until) -> None:
    receiver.answers["/hook"] = receiver.say(307, location=f"{receiver.url}/elsewhere")
    delivery = hooks.ping(hooks.add(f"{receiver.url}/hook"))
    until(lambda: hooks.tries(delivery))
    assert hooks.tries(delivery) == [(307, None)]
    assert receiver.at("/elsewhere") == []


@on_one_database
@pytest.mark.usefixtures("sender")
def test_an_endless_answer_is_not_read(hooks: Any, receiver: Any, until: Until) -> None:
    sent = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 20))
            sent.append(1 << 20)

    receiver.answers["/hook"] = answer
    delivery = hooks.ping(hooks.add(f"{receiver.url}/hook"))
    until(lambda: hooks.delivery(delivery).delivered_at)
    assert hooks.tries(delivery) == [(200, None)]
    assert sum(sent) < 64 << 20  # what fits into the buffers of the line


@on_one_database
def test_a_receiver_that_does_not_answer_is_left(
    hooks: Any, receiver: Any, until: Until, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "TIMEOUT_S", 0.2)
    receiver.answers["/hook"] = receiver.wait_open
    delivery = hooks.ping(hooks.add(f"{receiver.url}/hook"))
    with sending(threading.Event(), settings):
        until(lambda: hooks.tries(delivery))
    assert hooks.tries(delivery) == [(None, "no answer within 0.2 s")]
    assert hooks.delivery(delivery).next_at


@on_one_database
def test_no_private_target_is_connected_to(hooks: Any, receiver: Any, until: Until, settings: Settings) -> None:
    port = receiver.url.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "2130706433")
    sent = [hooks.ping(hooks.add(f"http://{host}:{port}/hook")) for host in hosts]
    closed = settings.model_copy(update={"webhook_private_targets": False})
    with sending(threading.Event(), closed):
        until(lambda: all(hooks.tries(each) for each in sent))
    for each in sent:
        [(status, error)] = hooks.tries(each)
        assert status is None
        assert "not on the public internet" in (error or "")
    assert receiver.taken == []


@on_one_database
@pytest.mark.usefixtures("sender")
def test_hosts_by_name_and_by_number_are_reached(hooks: Any, receiver: Any, until: Until) -> None:
    port = receiver.url.rpartition(":")[2]
    for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]"):
        hooks.ping(hooks.add(f"http://{host}:{port}/{len(host)}"))
    until(lambda: len(receiver.taken) == 3)
    named = {each["headers"]["host"] for each in receiver.taken}
    assert named == {f"localhost:{port}", f"127.0.0.1:{port}", f"[::ffff:127.0.0.1]:{port}"}


@on_one_database
def test_a_certificate_must_be_for_the_hosts_name(
    hooks: Any, receiver: Any, until: Until, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the connection goes to an address."""
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    made = "req -x509 -nodes -newkey rsa:2048 -subj /CN=here -addext subjectAltName=DNS:localhost"
    subprocess.run(["openssl", *made.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    receiver.serve_tls(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = receiver.url.rpartition(":")[2]
    named, numbered = (hooks.ping(hooks.add(f"https://{host}:{port}/")) for host in ("localhost", "127.0.0.1"))
    with sending(threading.Event(), settings):
        until(lambda: hooks.tries(named) and hooks.tries(numbered))
    assert hooks.tries(named) == [(204, None)]
    [(status, error)] = hooks.tries(numbered)
    assert status is None
    assert "certificate" in (error or "")


@on_one_database
def test_proxies_of_the_environment_are_not_used(
    hooks: Any, receiver: Any, until: Until, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    hooks.ping(hooks.add(receiver.url))
    with sending(threading.Event(), settings):
        until(lambda: receiver.taken)


@on_one_database
@pytest.mark.usefixtures("sender")
def test_retry_after_is_read(hooks: Any, receiver: Any, until: Until) -> None:
    least_s = {"120": 110, "Fri, 01 Jan 2100 00:00:00 GMT": 9 * 3600, "soon": 0}
    for number, said in enumerate(least_s):
        receiver.answers[f"/{number}"] = receiver.say(429, retry_after=said)
    sent = [hooks.ping(hooks.add(f"{receiver.url}/{number}")) for number in range(len(least_s))]
    until(lambda: all(hooks.tries(each) for each in sent))
    for each, seconds in zip(sent, least_s.values(), strict=True):
        next_at = hooks.delivery(each).next_at
        assert next_at
        assert timedelta(seconds=seconds) < next_at - utc_now() <= timedelta(hours=10)
