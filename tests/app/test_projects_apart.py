"""Projects apart: to a key of one project, what another has is as if it had never been. On every route there is."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.artifacts.tables import ArtifactRow
from app.context import Context
from app.contracts.states import JobState
from app.db.ids import new_id
from app.jobs import repository as jobs

NEVER = "00000000000000000000000000"
TUS = {"Tus-Resumable": "1.0.0"}
NOT_OURS = {"slug", "method"}
"""Path parameters that name what belongs to nobody."""

# What a request must have beside its path to get as far as looking for what the path names.
BODIES: Mapping[str, Mapping[str, Any]] = {
    "HEAD /v1/uploads/{upload_id}": {"headers": TUS},
    "DELETE /v1/uploads/{upload_id}": {"headers": TUS},
    "PATCH /v1/uploads/{upload_id}": {
        "headers": {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
        "content": b"abc",
    },
    "POST /v1/uploads/{upload_id}": {"headers": {**TUS, "X-HTTP-Method-Override": "DELETE"}},
}
VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "GET /v1/jobs/{job_id}": (
        {"params": {"wait": "5"}},
        {"headers": {"If-None-Match": "*"}},
        {"headers": {"If-None-Match": '"1"', "Prefer": "wait=5"}},
    ),
    "GET /v1/jobs/{job_id}/events": ({"headers": {"Accept": "text/event-stream"}}, {"headers": {"Last-Event-ID": "x"}}),
    "GET /v1/jobs/{job_id}/comparison": ({"params": {"format": "csv"}},),
    "GET /v1/models/{model_id}": ({"headers": {"If-None-Match": "*"}},),
    "GET /v1/models/{model_id}/content": (
        {"params": {"as": "onnx"}},
        {"headers": {"If-None-Match": "*", "Range": "bytes=0-1"}},
    ),
    "GET /v1/datasets/{dataset_id}": ({"headers": {"If-None-Match": "*"}},),
    "GET /v1/artifacts/{artifact_id}/content": ({"headers": {"If-None-Match": "*"}},),
}


@dataclass(frozen=True)
class Owned:
    """What a project has, by the parameter that names it."""

    ids: Mapping[str, str]
    spec: Mapping[str, Any]


@pytest.fixture
def owner(bearer: Callable[..., dict[str, str]]) -> dict[str, str]:
    return bearer("admin", "owner")


@pytest.fixture
def stranger(bearer: Callable[..., dict[str, str]]) -> dict[str, str]:
    return bearer("admin", "stranger")


@pytest.fixture
def owned(client: httpx.Client, context: Context, owner: dict[str, str], make_model: Any, make_dataset: Any) -> Owned:
    """One of each, with everything that may be asked for beneath it."""
    model, dataset = make_model(project="owner"), make_dataset(project="owner")
    uploaded = client.post("/v1/models", headers=owner, content=b"the owner's bytes").json()["id"]
    spec = {
        "model": model,
        "recipe": [{"method": "quantize.static"}],
        "data": {"calibrate": dataset},
        "tags": {"team": "owner"},
    }
    created = client.post("/v1/jobs", headers={**owner, "Idempotency-Key": "same"}, json=spec)
    job = created.json()["id"]
    artifact = ArtifactRow(
        id=new_id("art"), job_id=job, project="owner", format="onnx", filename="a.onnx", sha256="2" * 64, size_bytes=3
    )
    with context.database.write() as session:
        session.add(artifact)
    upload = client.post("/v1/uploads", headers={**owner, **TUS, "Upload-Length": "3"}).headers["location"]
    webhook = client.post("/v1/webhooks", headers=owner, json={"url": "https://93.184.215.14/hook"})
    assert webhook.status_code == 201, webhook.text
    delivery = client.post(f"/v1/webhooks/{webhook.json()['id']}/test", headers=owner).json()["id"]
    key = client.get("/v1/keys", headers=owner).json()["data"][0]["id"]
    return Owned(
        {
            "model_id": model,
            "dataset_id": dataset,
            "job_id": job,
            "artifact_id": artifact.id,
            "upload_id": upload.rpartition("/")[2],
            "webhook_id": webhook.json()["id"],
            "delivery_id": delivery,
            "key_id": key,
            "uploaded": uploaded,
        },
        spec,
    )


def named_operations(document: dict[str, Any]) -> list[str]:
    """Operations whose path names something that belongs to a project."""
    return [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
        if set(re.findall(r"\{(\w+)\}", path)) - NOT_OURS
    ]


def never(ids: Mapping[str, str]) -> dict[str, str]:
    """Ids of the same form that nothing ever had."""
    return {name: f"{id_.partition('_')[0]}_{NEVER}" for name, id_ in ids.items()}


def test_what_another_project_has_is_what_never_was(
    client: httpx.Client, server: FastAPI, owned: Owned, stranger: dict[str, str]
) -> None:
    unknown = never(owned.ids)
    for operation in named_operations(server.openapi()):
        method, _, template = operation.partition(" ")
        for extra in (BODIES.get(operation, {}), *VARIANTS.get(operation, ())):
            headers = {**stranger, **extra.get("headers", {})}
            asked, control = (
                client.request(method, template.format(**ids), **{**extra, "headers": headers})
                for ids in (owned.ids, unknown)
            )
            assert asked.status_code == control.status_code == 404, (operation, extra, asked.text)
            assert comparable(asked, owned.ids) == comparable(control, unknown), operation


def comparable(answer: httpx.Response, ids: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Body and headers, but for the ids in them and what tells requests apart."""
    text = answer.text.replace(answer.headers["x-request-id"], "")
    for name, id_ in ids.items():
        text = text.replace(id_, name)
    varying = {"x-request-id", "ratelimit", "content-length"}
    return text, {name: value for name, value in answer.headers.items() if name not in varying}


def test_the_owner_finds_all_of_it(client: httpx.Client, server: FastAPI, owned: Owned, owner: dict[str, str]) -> None:
    """Else the test above would pass on an empty project."""
    for operation in named_operations(server.openapi()):
        method, _, template = operation.partition(" ")
        if method in ("GET", "HEAD") and "content" not in template:
            headers = {**owner, **BODIES.get(operation, {}).get("headers", {})}
            status = client.request(method, template.format(**owned.ids), headers=headers).status_code
            assert status in (200, 409), operation
    assert client.get(f"/v1/models/{owned.ids['uploaded']}/content", headers=owner).content == b"the owner's bytes"


def test_lists_hold_only_what_is_ones_own(
    client: httpx.Client, server: FastAPI, owned: Owned, owner: dict[str, str], stranger: dict[str, str]
) -> None:
    filters = {
        "/v1/jobs": ({"model": owned.ids["model_id"]}, {"tag": "team"}, {"tag": "team=owner"}, {"state": "queued"}),
        "/v1/artifacts": ({"job": owned.ids["job_id"]},),
        "/v1/models": ({"state": "ready"},),
        "/v1/audit": ({"key": owned.ids["key_id"]},),
    }
    lists = [
        path
        for path, methods in server.openapi()["paths"].items()
        if "get" in methods and path.startswith("/v1/") and "{" not in path and path != "/v1/methods"
    ]
    assert len(lists) >= 7
    for path in lists:
        for wanted in ({}, *filters.get(path, ())):
            mine, theirs = (client.get(path, headers=who, params=wanted).text for who in (owner, stranger))
            assert not any(id_ in theirs for id_ in owned.ids.values()), (path, wanted)
            assert any(id_ in mine for id_ in owned.ids.values()), (path, wanted)


@pytest.fixture
def strangers_own(make_model: Any, make_dataset: Any) -> tuple[str, str]:
    """A model and a dataset that the stranger may use."""
    return make_model(project="stranger"), make_dataset(project="stranger")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/preflight"])
@pytest.mark.parametrize("place", ["model", "calibrate", "teacher"])
def test_a_job_that_names_what_another_has_is_as_one_that_names_nothing(
    client: httpx.Client, owned: Owned, stranger: dict[str, str], strangers_own: tuple[str, str], path: str, place: str
) -> None:
    own_model, own_data = strangers_own

    def send(ids: Mapping[str, str]) -> httpx.Response:
        spec: dict[str, Any] = {
            "model": ids["model_id"] if place == "model" else own_model,
            "recipe": [{"method": "quantize.static"}],
            "data": {"calibrate": ids["dataset_id"] if place == "calibrate" else own_data, "train": own_data},
        }
        if place == "teacher":
            spec["recipe"] = [{"method": "train", "distill": {"teacher": ids["model_id"]}}]
        return client.post(path, headers=stranger, json=spec)

    unknown = never(owned.ids)
    asked, control = send(owned.ids), send(unknown)
    assert asked.status_code == control.status_code == 422, asked.text
    assert asked.json()["code"].endswith("_NOT_FOUND")
    assert comparable(asked, owned.ids) == comparable(control, unknown)


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_a_model_of_anothers_upload_is_as_one_of_none(
    client: httpx.Client, owned: Owned, stranger: dict[str, str], kind: str
) -> None:
    unknown = never(owned.ids)
    asked, control = (
        client.post(f"/v1/{kind}", headers=stranger, json={"upload": ids["upload_id"]}) for ids in (owned.ids, unknown)
    )
    assert asked.status_code == control.status_code == 422, asked.text
    assert comparable(asked, owned.ids) == comparable(control, unknown)


def test_an_idempotency_key_is_ones_own(client: httpx.Client, owned: Owned, stranger: dict[str, str]) -> None:
    answer = client.post("/v1/jobs", headers={**stranger, "Idempotency-Key": "same"}, json=owned.spec)
    assert answer.status_code == 422
    assert "idempotent-replayed" not in answer.headers


def test_what_is_made_belongs_to_who_made_it(
    client: httpx.Client, context: Context, stranger: dict[str, str], owner: dict[str, str]
) -> None:
    model = client.post("/v1/models", headers=stranger, content=b"bytes").json()["id"]
    dataset = client.post("/v1/datasets", headers=stranger, content=b"bytes").json()["id"]
    job = client.post(
        "/v1/jobs", headers=stranger, json={"model": model, "recipe": [{"method": "quantize.dynamic"}]}
    ).json()["id"]
    for path in (f"/v1/models/{model}", f"/v1/datasets/{dataset}", f"/v1/jobs/{job}"):
        assert [client.get(path, headers=who).status_code for who in (stranger, owner)] == [200, 404]
    with context.database.read() as session:
        row = jobs.get(session, job)
    assert row is not None
    assert (row.project, row.state) == ("stranger", JobState.QUEUED)


def test_totals_of_all_projects_are_the_operators(
    client: httpx.Client, stranger: dict[str, str], bearer: Callable[..., dict[str, str]]
) -> None:
    refused = client.get("/metrics", headers=stranger)
    assert (refused.status_code, refused.json()["code"]) == (403, "PROJECT_INSUFFICIENT")
    assert client.get("/metrics", headers=bearer("read")).status_code == 200
