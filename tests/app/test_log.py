"""What the log says, and what it never says."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.log import configure
from app.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[], None]:
    """Logs as JSON from now on."""
    database, key = "postgresql://slim:correct-horse@host/db", "battery-staple"
    chosen = Settings(data=tmp_path, log_json=True, log_level="DEBUG", database_url=database, storage_secret_key=key)
    return lambda: configure(chosen)


def read_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    "secret",
    [
        "slk_01JD3Q4W8Z6T5R2N9B7K1M0XCV_abcDEF-123",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "Bearer abcdef.0123456789",
        "authorization: basic dXNlcjpwYXNzd29yZA==",
        "redis://:sesame123@host:6379/0",
        "https://user:sesame123@example.org/hook",
        "correct-horse",
        "battery-staple",
    ],
)
def test_no_secret_is_logged(begin: Callable[[], None], capsys: pytest.CaptureFixture[str], secret: str) -> None:
    begin()
    log = structlog.get_logger("test")
    log.info("told", text=f"before {secret} after", deep={"list": [secret]})
    logging.getLogger("library").warning("of a library: %s", secret)
    log.error("failed", exc_info=ValueError(secret))
    written = read_lines(capsys)
    assert len(written) == 3
    text = json.dumps(written)
    hidden = ("slk_", "whsec_", "abcdef", "dXNl", "sesame", "correct-horse", "battery-staple")
    assert not [word for word in hidden if word in text]
    assert text.count("***") >= 4
    assert "before" in text


def test_plain_words_stay(begin: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    begin()
    text = "basic training of http://host:8000/v1/models/mdl_1 by user@example.org at 10:30"
    structlog.get_logger("test").info(text)
    assert read_lines(capsys)[0]["event"] == text


def served(server: FastAPI, ask: Callable[[httpx.Client], object]) -> None:
    with TestClient(server, raise_server_exceptions=False) as client:
        configure(server.state.context.settings.model_copy(update={"log_json": True, "log_level": "DEBUG"}))
        ask(client)


def test_a_line_of_a_request_has_its_id_and_its_trace(server: FastAPI, capsys: pytest.CaptureFixture[str]) -> None:
    headers = {"X-Request-Id": "mine-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    served(server, lambda client: client.delete("/v1/datasets/dst_1%0aforged", headers=headers))
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"request"' in line]
    assert len(found) == 1
    line = found[0]
    assert (line["request_id"], line["trace_id"], line["level"]) == ("mine-1", TRACE, "info")
    assert (line["method"], line["path"], line["status"]) == ("DELETE", "/v1/datasets/dst_1%0aforged", 404)


def test_polling_is_told_only_for_debugging(server: FastAPI, capsys: pytest.CaptureFixture[str]) -> None:
    served(server, lambda client: client.get("/v1/jobs"))
    line = next(json.loads(line) for line in capsys.readouterr().err.splitlines() if '"request"' in line)
    assert line["level"] == "debug"
    assert "trace_id" not in line
