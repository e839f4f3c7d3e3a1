"""`slimline keys`: into the database itself, in force when it returns, and clear about what is missing."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from typer.testing import CliRunner, Result

from app import cli
from app.context import Context
from app.db.database import make_engine
from app.db.migrate import downgrade
from app.settings import Settings


@pytest.fixture
def run(settings: Settings) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        command = ("keys", *arguments, "--data", str(settings.data))
        return CliRunner().invoke(cli.make_commands(), command, prog_name="slimline")

    return run


def made(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def status(url: str, token: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{url}/v1/jobs", headers=headers).status_code


def test_a_key_is_in_force_when_the_command_returns(
    run: Callable[..., Result], server: FastAPI, serving: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    with serving(server) as url:
        assert status(url) == 200
        key = made(run("create", "ops", "--json"))
        assert [status(url), status(url, key["key"])] == [401, 200]
        new = made(run("rotate", key["id"], "--json"))
        assert [status(url, key["key"]), status(url, new["key"])] == [401, 200]
        assert run("revoke", key["id"]).exit_code == 0
        assert status(url, new["key"]) == 401


def test_what_is_made_is_as_was_wished(run: Callable[..., Result], context: Context) -> None:
    plain = made(run("create", "ci", "--json"))
    assert (plain["name"], plain["role"], plain["project"], plain["expires_at"]) == ("ci", "submit", "default", None)
    wished = made(run("create", "boss", "--role", "admin", "--project", "team-b", "--expires", "1", "--json"))
    assert (wished["role"], wished["project"]) == ("admin", "team-b")
    assert wished["expires_at"] > wished["created_at"]
    listed = json.loads(run("list", "--json").stdout)
    assert [key["id"] for key in listed] == [wished["id"], plain["id"]]
    assert all("key" not in key for key in listed)
    assert [key["id"] for key in json.loads(run("list", "--project", "team-b", "--json").stdout)] == [wished["id"]]
    with context.database.read() as session:
        projects = session.connection().execute(text("SELECT name FROM projects ORDER BY name")).scalars().all()
        events = session.connection().execute(text("SELECT action, key_id FROM audit_events")).all()
    assert projects == ["default", "team-b"]
    assert [tuple(event) for event in events] == [("key.made", None)] * 2


def test_people_see_the_key_once_and_what_to_do_with_it(run: Callable[..., Result]) -> None:
    result = run("create", "ops")
    assert result.stdout.count("slk_") == 1
    assert "SLIMLINE_API_KEY" in result.stderr
    assert "slk_" not in run("list").output


def test_the_command_line_sends_the_key(
    run: Callable[..., Result],
    served: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = made(run("create", "ops", "--json"))["key"]
    list_jobs = ("jobs", "list", "--json", "--url", served)
    refused = CliRunner().invoke(cli.make_commands(), list_jobs)
    assert refused.exit_code == 1
    assert "KEY_MISSING" in refused.stderr
    monkeypatch.setenv("SLIMLINE_API_KEY", token)
    assert CliRunner().invoke(cli.make_commands(), list_jobs).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", ""), "at least 1 character"),
        (("create", "n", "--project", "Team B"), "--project"),
        (("create", "n", "--role", "root"), "--role"),
        (("create", "n", "--expires", "0"), "--expires"),
        (("revoke", "key_1"), "There is no key 'key_1'"),
        (("rotate", "key_1"), "There is no key 'key_1'"),
    ],
)
def test_wrong_usage_ends_with_2(run: Callable[..., Result], arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_without_a_database_it_says_so_and_makes_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.make_commands(), ["keys", "create", "ops", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "there is no database" in result.stderr
    assert "slimline migrate" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_old_database_is_left_alone(run: Callable[..., Result], settings: Settings) -> None:
    downgrade(settings.database, "0002")
    result = run("create", "ops")
    assert result.exit_code == 2
    assert "slimline migrate" in result.stderr
    engine = make_engine(settings.database)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0002"
    engine.dispose()


def test_a_database_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMLINE_DATABASE_URL", "postgresql://user:hush@127.0.0.1:9/slimline")
    result = CliRunner().invoke(cli.make_commands(), ["keys", "create", "ops"])
    assert result.exit_code == 2
    assert "SLIMLINE_DATABASE_URL" in result.stderr
    assert "hush" not in result.output
    assert "Traceback" not in result.output


def test_a_key_on_postgresql(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMLINE_DATABASE_URL", postgres_url)
    runner, commands = CliRunner(), cli.make_commands()
    assert runner.invoke(commands, ["keys", "create", "ops"]).exit_code == 2
    assert runner.invoke(commands, ["migrate"]).exit_code == 0
    key = made(runner.invoke(commands, ["keys", "create", "ops", "--json"]))
    assert [each["id"] for each in json.loads(runner.invoke(commands, ["keys", "list", "--json"]).stdout)] == [
        key["id"]
    ]
