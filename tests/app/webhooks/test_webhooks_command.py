"""`slimline webhooks` against a real server; nothing is sent here."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from app import cli
from app.cli import webhooks
from app.settings import Settings

TARGET = "http://127.0.0.1:9/hook"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private_targets": True})


@pytest.fixture
def run(served: str) -> Iterator[Callable[..., Any]]:
    """Runs `slimline webhooks …` and gives what it printed, JSON as data; the exit status must be `status`."""

    def invoke(*arguments: str, status: int = 0) -> Any:
        words = ["webhooks", *arguments, "--url", served]
        done = CliRunner().invoke(cli.make_commands(), words, prog_name="slimline")
        assert done.exit_code == status, done.output
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    with capture_logs():  # the server's, in this process
        yield invoke


def test_a_webhook_is_made_shown_and_deleted(run: Callable[..., Any]) -> None:
    made = run("create", TARGET, "--event", "job.succeeded", "--event", "job.failed", "--json")
    assert made["events"] == ["job.succeeded", "job.failed"]
    assert run("list", "--json") == [{name: value for name, value in made.items() if name != "secret"}]
    assert made["id"] in run("list")
    assert made["secret"] not in run("show", made["id"])
    assert run("rotate-secret", made["id"], "--json")["secret"] != made["secret"]
    run("delete", made["id"])
    assert run("list", "--json") == []
    run("show", made["id"], status=1)


def test_a_bad_url_is_the_callers_to_mend(run: Callable[..., Any]) -> None:
    run("create", "ftp://example.com/", status=2)


def test_deliveries_are_listed_and_replayed(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TEST_S", 0.1)
    made = run("create", TARGET, "--json")
    ping = run("test", made["id"], "--json", status=1)  # no sender runs, so it does not arrive
    assert (ping["type"], ping["tries"]) == ("ping", [])
    again = run("replay", made["id"], ping["id"]).strip()
    assert [each["id"] for each in run("deliveries", made["id"], "--json")] == [again, ping["id"]]
    table = run("deliveries", made["id"])
    assert all(word in table for word in (again, ping["id"], "ping", "pending"))
