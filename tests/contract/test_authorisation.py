"""Every route of the OpenAPI document, asked with every kind of key: who gets in is what the table of rules says."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.context import Context
from app.db.base import utc_now
from app.db.migrate import upgrade
from app.keys import service
from app.keys.schemas import NewKey
from app.main import create_app
from app.security import rate
from app.security.rules import RULES, Access, Rules
from app.settings import Settings

BAD = {"wrong": "KEY_INVALID", "expired": "KEY_EXPIRED", "revoked": "KEY_REVOKED", "none": "KEY_MISSING"}
GOOD = ("read", "submit", "admin", "other project's admin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    settings = Settings(data=tmp_path_factory.mktemp("rules"), broker_url="memory://")
    upgrade(settings.database)
    return create_app(settings)


@pytest.fixture(scope="module")
def tokens(server: FastAPI) -> dict[str, str]:
    """A token of each kind."""
    context: Context = server.state.context
    past = utc_now() - timedelta(seconds=1)

    def make(role: str, project: str = "default", **columns: object) -> str:
        with context.database.write() as session:
            row, token = service.create(session, project, NewKey(name="key", role=role))
            for name, value in columns.items():
                setattr(row, name, value)
        return token

    return {
        **{role: make(role) for role in ("read", "submit", "admin")},
        "other project's admin": make("admin", "other"),
        "wrong": make("admin")[:-1] + "-",
        "expired": make("admin", expires_at=past),
        "revoked": make("admin", revoked_at=past),
    }


@pytest.fixture(scope="module")
def ask(server: FastAPI, tokens: dict[str, str]) -> Iterator[Callable[[str, str], httpx.Response]]:
    """Ask for an operation with a kind of key; nothing that its path names is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate, "GUESSES_PER_MINUTE", 10**6)
        client = TestClient(server, raise_server_exceptions=False)

        def ask(operation: str, kind: str) -> httpx.Response:
            method, _, template = operation.partition(" ")
            headers = {"Authorization": f"Bearer {tokens[kind]}"} if kind in tokens else {}
            return client.request(method, re.sub(r"\{.*?\}", "none", template), headers=headers)

        with client:
            yield ask


def operations(document: dict[str, Any]) -> list[str]:
    return [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]


def test_every_operation_has_a_rule_and_every_rule_an_operation(server: FastAPI) -> None:
    hidden = {"GET /openapi.json", "GET /docs"}
    assert set(operations(server.openapi())) == RULES.keys() - hidden


def test_a_route_without_a_rule_is_no_server(server: FastAPI) -> None:
    rules = Rules({line: access for line, access in RULES.items() if line != "POST /v1/jobs"})
    with pytest.raises(ValueError, match=r"POST /v1/jobs has no rule: app/security/rules\.py"):
        rules.require_all(server)


@pytest.mark.parametrize("operation", RULES)
def test_who_gets_in(operation: str, ask: Callable[[str, str], httpx.Response]) -> None:
    access = RULES[operation]
    for kind, code in BAD.items():
        answer = ask(operation, kind)
        if access is Access.PUBLIC:
            assert answer.status_code in (200, 404), kind
        else:
            assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer"), kind
            assert not answer.content or answer.json()["code"] == code, kind
    for kind in GOOD:
        answer = ask(operation, kind)
        assert (answer.status_code == 403) is is_refused(access, kind), (kind, answer.text)
        assert answer.status_code != 401
        assert answer.status_code < 500


def is_refused(access: Access, kind: str) -> bool:
    match access:
        case Access.PUBLIC | Access.READ:
            return False
        case Access.SUBMIT:
            return kind == "read"
        case Access.ADMIN:
            return "admin" not in kind
        case Access.OPERATOR:
            return kind == "other project's admin"


def test_the_rules_are_what_is_meant() -> None:
    """Said a second time, by kind: a slip in the table must not pass as a rule."""
    public = {line for line, access in RULES.items() if access is Access.PUBLIC}
    assert not any("/v1/" in line for line in public)
    assert {line for line, access in RULES.items() if access is Access.OPERATOR} == {"GET /metrics"}
    for line, access in RULES.items():
        if re.match(r"\w+ /v1/(keys|webhooks|audit)", line):
            assert access is Access.ADMIN, line
        elif "/v1/" in line and not re.match(r"GET|HEAD|OPTIONS|POST /v1/jobs/preflight", line):
            assert access is Access.SUBMIT, line
        elif "/v1/" in line:
            assert access is Access.READ, line


def test_the_document_says_who_gets_in(server: FastAPI) -> None:
    document = server.openapi()
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            role = RULES[f"{method.upper()} {path}"].role
            assert operation.get("security") == ([{"key": [role]}] if role else None)
            assert ({"401", "403", "429"} <= operation["responses"].keys()) is (role is not None)


def test_a_refusal_says_which_role_is_needed(ask: Callable[[str, str], httpx.Response]) -> None:
    refused = ask("POST /v1/keys", "submit")
    assert "`admin`" in refused.json()["detail"]
    assert refused.headers["www-authenticate"] == 'Bearer realm="slimline", error="insufficient_scope", scope="admin"'


def test_no_file_of_the_repository_gives_a_key() -> None:
    """A token in a document or a test would be one that someone uses."""
    token = re.compile(r"slk_[0-9A-HJKMNP-TV-Z]{26}_[A-Za-z0-9_-]{43}")
    root = Path(__file__).parents[2]
    found = [
        path
        for folder in ("app", "docs", "tests", "benchmarks")
        for path in (root / folder).rglob("*.*")
        if path.suffix in (".py", ".md", ".yml", ".json") and token.search(path.read_text(errors="replace"))
    ]
    assert found == []
