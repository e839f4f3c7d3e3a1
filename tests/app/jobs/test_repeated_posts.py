"""POSTs that come again: under an Idempotency-Key they are done once; a failed job is tried again on request."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.context import Context
from app.contracts.states import JobState
from app.jobs.tables import JobRow

REPLAYED = "idempotent-replayed"


@pytest.fixture
def spec(make_model: Callable[..., str]) -> dict[str, Any]:
    return {"model": make_model(), "recipe": [{"method": "quantize.dynamic"}]}


def count_jobs(client: httpx.Client) -> int:
    return len(client.get("/v1/jobs").json()["data"])


def test_the_same_key_gets_the_first_answer(client: httpx.Client, spec: dict[str, Any]) -> None:
    headers = {"idempotency-key": '"a key"'}
    first, again = (client.post("/v1/jobs", json=spec, headers=headers) for _ in range(2))
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert REPLAYED not in first.headers
    assert again.headers[REPLAYED] == "true"
    assert count_jobs(client) == 1


def test_without_a_key_each_is_done(client: httpx.Client, spec: dict[str, Any]) -> None:
    for _ in range(2):
        client.post("/v1/jobs", json=spec)
    assert count_jobs(client) == 2


@pytest.mark.parametrize("other", [{"seed": 1}, {"path": "/v1/jobs/job_none/retry"}])
def test_the_same_key_for_another_request_is_refused(
    client: httpx.Client, spec: dict[str, Any], other: dict[str, Any]
) -> None:
    headers = {"idempotency-key": "k"}
    assert client.post("/v1/jobs", json=spec, headers=headers).status_code == 202
    path = other.pop("path", "/v1/jobs")
    refused = client.post(path, json={**spec, **other}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert count_jobs(client) == 1


def test_a_refusal_is_not_kept(client: httpx.Client, spec: dict[str, Any]) -> None:
    headers = {"idempotency-key": "k"}
    missing = {**spec, "model": "mdl_" + "0" * 26}
    assert client.post("/v1/jobs", json=missing, headers=headers).status_code == 422
    assert client.post("/v1/jobs", json=spec, headers=headers).status_code == 202


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_keys_have_bounds(client: httpx.Client, spec: dict[str, Any], key: str) -> None:
    assert client.post("/v1/jobs", json=spec, headers={"idempotency-key": key}).status_code == 422


def test_at_the_same_time_one_job_is_made(client: httpx.Client, spec: dict[str, Any]) -> None:
    answers = []

    def post() -> None:
        answers.append(client.post("/v1/jobs", json=spec, headers={"idempotency-key": "k"}))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {202, 409}
    busy = [answer.json()["code"] for answer in answers if answer.status_code == 409]
    assert set(busy) <= {"IDEMPOTENCY_KEY_IN_USE"}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert count_jobs(client) == 1


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_an_upload_is_known_by_its_content(client: httpx.Client, kind: str) -> None:
    def send(content: bytes, **fields: str) -> httpx.Response:
        # Each request has a boundary of its own, so the bodies differ though they say the same.
        return client.post(
            f"/v1/{kind}", files={"file": ("a.bin", content)}, data=fields, headers={"idempotency-key": "k"}
        )

    first, again = send(b"one"), send(b"one")
    assert (first.status_code, again.status_code, again.headers[REPLAYED]) == (201, 201, "true")
    assert again.json()["id"] == first.json()["id"]
    assert send(b"two").json()["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert send(b"one", name="another").json()["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert len(client.get(f"/v1/{kind}").json()["data"]) == 1


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_retry_posts_the_job_again(
    client: httpx.Client, context: Context, spec: dict[str, Any], state: JobState
) -> None:
    job = client.post("/v1/jobs", json={**spec, "name": "mine"}).json()["id"]
    with context.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job).values(state=state))
    answer = client.post(f"/v1/jobs/{job}/retry")
    again = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/jobs/{again['id']}")
    assert (again["state"], again["retried_job"], again["name"]) == ("queued", job, "mine")
    assert again["id"] != job


def test_only_what_went_wrong_can_be_retried(client: httpx.Client, spec: dict[str, Any]) -> None:
    job = client.post("/v1/jobs", json=spec).json()["id"]
    refused = client.post(f"/v1/jobs/{job}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "JOB_NOT_RETRIABLE")
    assert client.post("/v1/jobs/job_none/retry").status_code == 404


def test_a_job_remembers_the_request_that_asked_for_it(
    client: httpx.Client, context: Context, spec: dict[str, Any]
) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    job = client.post("/v1/jobs", json=spec, headers={"x-request-id": "mine", "traceparent": trace}).json()["id"]
    with context.database.read() as session:
        row = session.get_one(JobRow, job)
    assert (row.request_id, row.traceparent) == ("mine", trace)
