"""What a project may have at once: unfinished jobs, stored bytes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings

Bearer = Callable[..., dict[str, str]]


@pytest.fixture
def settings(settings: Settings, database_url: str) -> Settings:
    quotas = {"database_url": database_url, "quota_unfinished_jobs": 2, "quota_stored_bytes": 200_000}
    return Settings(**{**settings.model_dump(), **quotas})


@pytest.fixture
def spec(make_model: Callable[..., str]) -> dict[str, Any]:
    return {"model": make_model(size_bytes=10), "recipe": [{"method": "quantize.dynamic"}]}


def test_unfinished_jobs_are_limited(client: httpx.Client, spec: dict[str, Any]) -> None:
    first, second, refused = (client.post("/v1/jobs", json=spec) for _ in range(3))
    assert [first.status_code, second.status_code, refused.status_code] == [202, 202, 429]
    assert refused.json()["code"] == "QUOTA_JOBS"
    assert "2 unfinished jobs and may have 2" in refused.json()["detail"]
    assert refused.headers["ratelimit-policy"] == '"unfinished-jobs";q=2'
    assert refused.headers["ratelimit"] == '"unfinished-jobs";r=0'
    assert int(refused.headers["retry-after"]) > 0
    client.post(f"/v1/jobs/{first.json()['id']}/cancel")
    assert client.post("/v1/jobs", json=spec).status_code == 202
    retried = client.post(f"/v1/jobs/{first.json()['id']}/retry")
    assert (retried.status_code, retried.json()["code"]) == (429, "QUOTA_JOBS")


def test_a_repeated_request_is_answered_though_the_quota_is_full(client: httpx.Client, spec: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "mine"}
    first = client.post("/v1/jobs", json=spec, headers=headers)
    client.post("/v1/jobs", json=spec)
    again = client.post("/v1/jobs", json=spec, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_jobs_at_once_do_not_slip_past_the_quota(client: httpx.Client, spec: dict[str, Any]) -> None:
    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(lambda _: client.post("/v1/jobs", json=spec).status_code, range(6)))
    assert statuses == [202, 202, 429, 429, 429, 429]


def test_another_projects_jobs_do_not_count(
    client: httpx.Client, bearer: Bearer, make_model: Callable[..., str]
) -> None:
    statuses = {}
    for project in ("a", "b"):
        headers = bearer("submit", project)
        spec = {"model": make_model(project=project), "recipe": [{"method": "quantize.dynamic"}]}
        statuses[project] = [client.post("/v1/jobs", json=spec, headers=headers).status_code for _ in range(3)]
    assert statuses == {"a": [202, 202, 429], "b": [202, 202, 429]}


def test_stored_bytes_are_limited(client: httpx.Client) -> None:
    kept = client.post("/v1/models", content=bytes(150_000))
    assert kept.status_code == 201
    refused = client.post("/v1/datasets", content=bytes(60_000))
    assert (refused.status_code, refused.json()["code"]) == (413, "QUOTA_BYTES")
    assert "150000 bytes of the 200000 that it may have: 60000 more" in refused.json()["detail"]
    assert client.post("/v1/datasets", content=bytes(40_000)).status_code == 201
    assert client.delete(f"/v1/models/{kept.json()['id']}").status_code == 204
    assert client.post("/v1/datasets", content=bytes(60_000)).status_code == 201


def test_announced_uploads_count(client: httpx.Client) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "150000"}
    assert client.post("/v1/uploads", headers=headers).status_code == 201
    refused = client.post("/v1/uploads", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "QUOTA_BYTES")


def test_an_upload_becomes_a_model_within_the_quota(client: httpx.Client) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    upload = client.post("/v1/uploads", headers={**tus, "Upload-Length": "150000"}).headers["location"]
    piece = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert client.patch(upload, headers=piece, content=bytes(150_000)).status_code == 204
    made = client.post("/v1/models", json={"upload": upload.rpartition("/")[2]})
    assert made.status_code == 201, made.text


def test_what_cannot_fit_is_refused_before_it_comes(client: httpx.Client) -> None:
    def body() -> Any:
        raise AssertionError("the body was asked for")
        yield b""

    refused = client.post("/v1/models", content=body(), headers={"Content-Length": "9000000"})
    assert (refused.status_code, refused.json()["code"]) == (413, "QUOTA_BYTES")


def test_without_quotas_there_is_no_limit(settings: Settings, spec: dict[str, Any]) -> None:
    free = settings.model_copy(update={"quota_unfinished_jobs": 0, "quota_stored_bytes": 0})
    with TestClient(create_app(free)) as client:
        assert {client.post("/v1/jobs", json=spec).status_code for _ in range(4)} == {202}
        assert client.post("/v1/models", content=bytes(300_000)).status_code == 201
