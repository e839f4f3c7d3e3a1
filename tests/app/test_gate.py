"""The gate: before routing, before a body is read, and not to be talked round."""

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.context import Context
from app.security.rate import GUESSES_PER_MINUTE

Bearer = Callable[..., dict[str, str]]
NOTHING = "/v1/jobs/job_00000000000000000000000000"


def answer_of(client: httpx.Client, path: str = "/v1/jobs", **headers: str) -> tuple[int, str, str]:
    refused = client.get(path, headers=headers)
    return refused.status_code, refused.json().get("code", ""), refused.headers.get("www-authenticate", "")


def test_the_challenge_is_as_rfc_6750_has_it(client: httpx.Client, bearer: Bearer) -> None:
    good = bearer("read")["Authorization"]
    assert answer_of(client) == (401, "KEY_MISSING", 'Bearer realm="slimline"')
    for sent in ("Bearer", "Bearer ", "Basic Zm9vOmJhcg==", f"Token {good[7:]}", good[:-1], f"{good}x", "Bearer \xe9"):
        status, code, challenge = answer_of(client, authorization=sent.encode("latin-1"))
        assert (status, code) == (401, "KEY_INVALID"), sent
        assert challenge.startswith('Bearer realm="slimline", error="invalid_token", error_description="')
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert answer_of(client, authorization=f"{scheme} {good[7:]}")[0] == 200


def test_two_keys_are_none(client: httpx.Client, bearer: Bearer) -> None:
    good = bearer("read")["Authorization"]
    refused = client.get("/v1/jobs", headers=[("Authorization", good), ("Authorization", good)])
    assert refused.json()["code"] == "KEY_INVALID"


def test_a_key_in_the_url_is_none(client: httpx.Client, bearer: Bearer) -> None:
    token = bearer("read")["Authorization"][7:]
    assert answer_of(client, f"/v1/jobs?access_token={token}")[:2] == (401, "KEY_MISSING")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "/v1/jobs/", "/V1/jobs", "/v1//jobs", "/v1/%6aobs", "/metrics"]
)
def test_a_stranger_does_not_learn_what_there_is(client: httpx.Client, bearer: Bearer, path: str) -> None:
    bearer("read")
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        assert client.request(method, path, follow_redirects=False).status_code == 401, method


def test_who_has_a_key_is_told_what_is_not_there(client: httpx.Client, bearer: Bearer) -> None:
    headers = bearer("read")
    assert client.get("/v1/nothing", headers=headers).json()["code"] == "NOT_FOUND"
    assert client.put("/v1/jobs", headers=headers).json()["code"] == "METHOD_NOT_ALLOWED"


def test_a_method_in_a_header_does_not_evade_the_rules(client: httpx.Client, bearer: Bearer) -> None:
    read, submit = bearer("read"), bearer("submit")
    upload = "/v1/uploads/upl_00000000000000000000000000"
    for method in ("HEAD", "GET", "POST", "PATCH"):
        for named in ("DELETE", "delete", " PATCH "):
            asked = client.request(method, upload, headers={**read, "X-HTTP-Method-Override": named})
            assert asked.status_code == 403, (method, named)
    for method, named in (("POST", "GET"), ("DELETE", "HEAD"), ("PATCH", "OPTIONS")):
        asked = client.request(method, upload, headers={**read, "X-HTTP-Method-Override": named})
        assert asked.status_code == 403, (method, named)
    twice = [*submit.items(), ("X-HTTP-Method-Override", "GET"), ("X-HTTP-Method-Override", "DELETE")]
    assert client.post("/v1/keys/key_1", headers=twice).status_code == 403


def test_a_prefix_of_a_proxy_does_not_evade_the_rules(server: FastAPI, bearer: Bearer) -> None:
    headers = bearer("read")
    with TestClient(server, root_path="/api") as behind_proxy:
        assert behind_proxy.get("/api/v1/keys", headers=headers).status_code == 403
        assert behind_proxy.get("/api/v1/jobs", headers=headers).status_code == 200
        assert behind_proxy.get("/api/v1/jobs").status_code == 401


def test_a_head_needs_what_a_get_needs(client: httpx.Client, bearer: Bearer) -> None:
    bearer("read")
    for path in ("/v1/models/m/content", "/v1/artifacts/a/content", "/v1/keys", "/openapi.json"):
        assert client.head(path).status_code == (200 if path == "/openapi.json" else 401)


def test_nothing_of_a_strangers_body_is_read(
    server: FastAPI, bearer: Bearer, serving: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    bearer("submit")
    with serving(server) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
        line.settimeout(10)
        line.sendall(b"POST /v1/models HTTP/1.1\r\nHost: here\r\nContent-Length: 999999999\r\n\r\nfirst")
        assert line.recv(65536).startswith(b"HTTP/1.1 401")  # the body never came


def test_an_unknown_key_and_a_wrong_secret_look_the_same(client: httpx.Client, bearer: Bearer) -> None:
    good = bearer("read")["Authorization"]
    wrong = [f"{good[:-3]}AAA", good.replace(good[11:20], "000000000")]
    answers = [client.get("/v1/jobs", headers={"Authorization": sent}) for sent in wrong]
    for answer in answers:
        assert answer.status_code == 401
    first, second = ({**answer.json(), "request_id": ""} for answer in answers)
    assert first == second


def test_who_guesses_is_slowed_and_who_has_a_key_is_not(client: httpx.Client, bearer: Bearer) -> None:
    good, new = bearer("read"), bearer("read")
    assert client.get("/v1/methods", headers=good).status_code == 200
    wrong = {"Authorization": f"{good['Authorization'][:-3]}AAA"}
    statuses = [client.get("/v1/methods", headers=wrong).status_code for _ in range(GUESSES_PER_MINUTE + 2)]
    assert statuses == [401] * GUESSES_PER_MINUTE + [429, 429]
    slowed = client.get("/v1/methods", headers=wrong)
    assert slowed.json()["code"] == "KEY_GUESSING"
    assert 1 <= int(slowed.headers["retry-after"]) <= 60
    assert client.get("/v1/methods", headers=good).status_code == 200
    assert client.get("/v1/methods", headers=new).status_code == 429  # not seen before: it could be a guess
    assert client.get("/healthz").status_code == 200


def test_another_address_is_another_guesser(server: FastAPI, bearer: Bearer) -> None:
    good = bearer("read")
    wrong = {"Authorization": f"{good['Authorization'][:-3]}AAA"}
    with TestClient(server, client=("2001:db8::1", 1)) as guesser:
        for _ in range(GUESSES_PER_MINUTE):
            guesser.get("/v1/methods", headers=wrong)
    for address, status in (("2001:db8::2", 429), ("2001:db8:0:1::2", 401), ("192.0.2.1", 401)):
        assert TestClient(server, client=(address, 1)).get("/v1/methods", headers=wrong).status_code == status


def test_a_gate_whose_database_is_away_waits(client: httpx.Client, bearer: Bearer, context: Context) -> None:
    headers = bearer("read")
    database = context.settings.data / "slimline.db"
    context.database.close()
    aside = database.rename(database.with_suffix(".aside"))
    database.mkdir()  # which no driver can open

    def bring_back() -> None:
        database.rmdir()
        aside.rename(database)

    threading.Timer(0.7, bring_back).start()
    assert client.get(NOTHING, headers=headers).status_code == 404
