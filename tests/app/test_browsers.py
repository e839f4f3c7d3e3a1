"""A service without a key, and pages of other sites in a browser beside it."""

import json
from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings

Bearer = Callable[..., dict[str, str]]
KEY = {"name": "mine", "role": "read"}

OWN = [
    "localhost",
    "localhost:8000",
    "LOCALHOST.",
    "127.0.0.1:8000",
    "[::1]:8000",
    "10.1.2.3",
    "api:8000",
    "a.localhost",
]
OTHERS = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "1.2.3.4.5"]


def code_of(answer: httpx.Response) -> str | None:
    code = answer.json().get("code") if answer.status_code >= 400 else None
    assert answer.status_code == 403 or code is None
    return code


@pytest.mark.parametrize("host", OWN)
def test_its_own_names_are_answered(client: httpx.Client, host: str) -> None:
    assert code_of(client.get("/v1/jobs", headers={"host": host})) is None


@pytest.mark.parametrize("host", OTHERS)
def test_names_that_may_be_anothers_are_refused(client: httpx.Client, host: str) -> None:
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/keys")):
        assert code_of(client.request(method, path, headers={"host": host})) == "HOST_REFUSED"
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:3000", "http://testserver:81", "null", "", "http://[", "é"]
)
def test_pages_of_other_sites_change_nothing(client: httpx.Client, origin: str) -> None:
    headers = [("Origin", origin.encode("latin-1"))]
    form = {"file": ("net.onnx", b"not a model")}
    assert code_of(client.post("/v1/models", files=form, headers=headers)) == "ORIGIN_REFUSED"
    assert code_of(client.post("/v1/keys", content=json.dumps(KEY), headers=headers)) == "ORIGIN_REFUSED"
    assert client.get("/v1/keys").json()["data"] == []


def test_its_own_page_may_ask_for_changes(client: httpx.Client) -> None:
    headers = {"host": "localhost:8000", "origin": "http://localhost:8000"}
    assert client.post("/v1/keys", json={"name": "mine", "role": "admin"}, headers=headers).status_code == 201


def test_with_a_key_it_is_not_asked_from_where(client: httpx.Client, bearer: Bearer) -> None:
    headers = {"host": "slimline.example", "origin": "https://dashboard.example"}
    admin = bearer("admin")
    assert client.post("/v1/keys", json=KEY, headers={**headers, **admin}).status_code == 201
    assert client.post("/v1/keys", json=KEY, headers=headers).json()["code"] == "KEY_MISSING"


def test_who_opens_it_to_others_opens_it_under_every_name(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"insecure_open": True}))) as client:
        headers = {"host": "slimline.example", "origin": "https://evil.example"}
        assert client.get("/v1/jobs", headers=headers).status_code == 200
        assert code_of(client.post("/v1/keys", json=KEY, headers=headers)) == "ORIGIN_REFUSED"
