"""Keys over HTTP: made and shown once, rotated, revoked, seen in the audit log."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app.context import Context
from app.db.base import utc_now
from app.idempotency.tables import KeptAnswerRow
from app.jobs.queue import attempts
from app.keys.keyring import OPEN_FOR_S, REMEMBERED_S
from app.keys.tables import KeyRow
from app.security.token import key_id_of

Bearer = Callable[..., dict[str, str]]


def as_key(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def may_list(client: httpx.Client, token: str) -> int:
    return client.get("/v1/jobs", headers=as_key(token)).status_code


def test_the_first_key_closes_the_service(client: httpx.Client) -> None:
    assert client.get("/v1/jobs").status_code == 200
    made = client.post("/v1/keys", json={"name": "ops", "role": "admin"})
    assert made.status_code == 201
    assert made.headers["location"] == f"/v1/keys/{made.json()['id']}"
    time.sleep(OPEN_FOR_S)
    assert client.get("/v1/jobs").status_code == 401
    assert may_list(client, made.json()["key"]) == 200


def test_the_service_stays_closed_when_every_key_is_revoked(client: httpx.Client, bearer: Bearer) -> None:
    admin = bearer("admin")
    [key] = client.get("/v1/keys", headers=admin).json()["data"]
    assert client.delete(f"/v1/keys/{key['id']}", headers=admin).status_code == 204
    time.sleep(REMEMBERED_S)
    refused = client.get("/v1/jobs", headers=admin)
    assert (refused.status_code, refused.json()["code"]) == (401, "KEY_REVOKED")
    assert client.get("/v1/jobs").status_code == 401


def test_a_secret_is_shown_once_and_kept_nowhere(client: httpx.Client, bearer: Bearer, context: Context) -> None:
    headers = {**bearer("admin"), "Idempotency-Key": "once"}
    wanted = {"name": "ci", "role": "read"}
    first, again = (client.post("/v1/keys", headers=headers, json=wanted).json() for _ in range(2))
    token = first.pop("key")
    assert key_id_of(token) == first["id"]
    assert again == {**first, "key": None}
    assert "key" not in client.get(f"/v1/keys/{first['id']}", headers=headers).json()
    with context.database.read() as session:
        assert token not in session.scalars(select(KeptAnswerRow)).one().body
        dump = [str(row) for table in ("keys", "audit_events") for row in dump_table(session, table)]
    assert dump
    assert not any(token[-43:] in row for row in dump)


def dump_table(session: Any, table: str) -> list[Any]:
    return list(session.connection().exec_driver_sql(f"SELECT * FROM {table}").all())


def test_a_rotated_key_has_a_new_secret_and_for_a_while_the_old_one(client: httpx.Client, bearer: Bearer) -> None:
    admin = bearer("admin")
    old = client.post("/v1/keys", headers=admin, json={"name": "ci", "role": "read"}).json()
    assert may_list(client, old["key"]) == 200
    path = f"/v1/keys/{old['id']}/rotate"
    new = client.post(path, headers=admin, json={"grace_s": 60}).json()
    assert new["id"] == old["id"]
    assert new["key"] != old["key"]
    newest = client.post(path, headers=admin).json()
    time.sleep(REMEMBERED_S)
    statuses = [may_list(client, key["key"]) for key in (old, new, newest)]
    assert statuses == [401, 401, 200]


def test_the_old_secret_works_on_for_its_grace(client: httpx.Client, bearer: Bearer) -> None:
    admin = bearer("admin")
    old = client.post("/v1/keys", headers=admin, json={"name": "ci", "role": "read"}).json()
    new = client.post(f"/v1/keys/{old['id']}/rotate", headers=admin, json={"grace_s": 60}).json()
    assert [may_list(client, key["key"]) for key in (old, new)] == [200, 200]


def test_a_key_that_is_over_is_not_rotated(client: httpx.Client, bearer: Bearer) -> None:
    admin = bearer("admin")
    key_id = client.post("/v1/keys", headers=admin, json={"name": "ci", "role": "read"}).json()["id"]
    assert [client.delete(f"/v1/keys/{key_id}", headers=admin).status_code for _ in range(2)] == [204, 204]
    refused = client.post(f"/v1/keys/{key_id}/rotate", headers=admin)
    assert (refused.status_code, refused.json()["code"]) == (409, "KEY_OVER")


def test_a_key_expires(client: httpx.Client, bearer: Bearer) -> None:
    admin = bearer("admin")
    soon = (utc_now() + timedelta(seconds=0.3)).isoformat()
    wanted = {"name": "ci", "role": "read", "expires_at": soon}
    token = client.post("/v1/keys", headers=admin, json=wanted).json()["key"]
    assert may_list(client, token) == 200
    time.sleep(0.3)
    refused = client.get("/v1/jobs", headers=as_key(token))
    assert (refused.status_code, refused.json()["code"]) == (401, "KEY_EXPIRED")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", "root"),
        ("name", " "),
        ("name", "n" * 101),
        ("expires_at", "2020-01-01T00:00:00Z"),
        ("expires_at", "2099-01-01T00:00:00"),
        ("requests_per_minute", -1),
        ("project", "other"),
    ],
)
def test_bad_wishes_are_refused(client: httpx.Client, field: str, value: object) -> None:
    refused = client.post("/v1/keys", json={"name": "ci", "role": "read", field: value})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == f"/{field}"


def test_a_stream_ends_with_its_key(
    client: httpx.Client, bearer: Bearer, context: Context, make_model: Callable[..., str]
) -> None:
    reader, spec = bearer("submit"), {"model": make_model(), "recipe": [{"method": "quantize.dynamic"}]}
    job_id = client.post("/v1/jobs", json=spec, headers=reader).json()["id"]

    def revoke() -> None:
        with context.database.write() as session:
            session.execute(update(KeyRow).values(revoked_at=utc_now()))
        with context.database.write() as session:
            attempts.claim(session, job_id, 60)

    timer = threading.Timer(0.2, revoke)
    timer.start()
    streamed = client.get(f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream", **reader})
    timer.join()
    assert [line for line in streamed.text.splitlines() if line.startswith("event: ")] == ["event: state"]


def test_the_last_use_is_noted_once_a_minute(client: httpx.Client, bearer: Bearer) -> None:
    headers = bearer("admin")

    def read() -> str | None:
        return str(client.get("/v1/keys", headers=headers).json()["data"][0]["last_used_at"])

    deadline = time.monotonic() + 10
    while (first := read()) == "None":
        assert time.monotonic() < deadline
    time.sleep(REMEMBERED_S)
    assert {read() for _ in range(3)} == {first}


def test_what_keys_do_is_in_the_audit_log(client: httpx.Client, bearer: Bearer, make_model: Callable[..., str]) -> None:
    admin, submit, read = bearer("admin"), bearer("submit"), bearer("read")
    spec = {"model": make_model(), "recipe": [{"method": "quantize.dynamic"}]}
    job = client.post("/v1/jobs", headers={**submit, "X-Request-Id": "mine"}, json=spec).json()["id"]
    assert client.post(f"/v1/jobs/{job}/cancel", headers=submit).status_code == 202
    for _ in range(3):
        assert client.post("/v1/jobs", headers=read, json=spec).status_code == 403
    page = client.get("/v1/audit?limit=4", headers=admin).json()
    told = [(event["action"], event["target"], event["key_id"]) for event in page["data"]]
    [reader, submitter, _] = [key["id"] for key in client.get("/v1/keys", headers=admin).json()["data"]]
    assert told == [
        ("access.refused", "POST /v1/jobs", reader),
        ("job.cancelled", job, submitter),
        ("job.submitted", job, submitter),
        ("key.made", reader, None),
    ]
    assert page["data"][2]["request_id"] == "mine"
    assert page["data"][2]["address"] == "testclient"
    rest = client.get(f"/v1/audit?after={page['next']}", headers=admin).json()
    assert [event["action"] for event in rest["data"]] == ["key.made", "key.made"]
    only = client.get(f"/v1/audit?action=access.refused&key={reader}", headers=admin).json()["data"]
    assert [event["target"] for event in only] == ["POST /v1/jobs"]


def test_a_change_that_is_not_made_is_not_in_the_audit_log(client: httpx.Client, bearer: Bearer) -> None:
    admin = bearer("admin")
    spec = {"model": "mdl_00000000000000000000000000", "recipe": [{"method": "quantize.dynamic"}]}
    assert client.post("/v1/jobs", headers=admin, json=spec).status_code == 422
    assert [event["action"] for event in client.get("/v1/audit", headers=admin).json()["data"]] == ["key.made"]


def test_while_the_service_is_open_changes_are_nobodys(client: httpx.Client, make_model: Callable[..., str]) -> None:
    spec = {"model": make_model(), "recipe": [{"method": "quantize.dynamic"}]}
    assert client.post("/v1/jobs", json=spec).status_code == 202
    assert client.get("/v1/audit").json()["data"] == []
