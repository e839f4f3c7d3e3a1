"""`slimline … delete` against a real server: what it prints, its status, and the question on a terminal."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.db.migrate import upgrade
from app.settings import Settings

Make = Callable[..., str]


@pytest.fixture
def settings(tmp_path: Path, broker_url: str) -> Settings:
    """Of a server on SQLite: the command does not see the database."""
    chosen = Settings(data=tmp_path / "data", broker_url=broker_url)
    upgrade(chosen.database)
    return chosen


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments, "--url", url]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def test_several_are_deleted_at_once(served: str, make_model: Make) -> None:
    ids = [make_model() for _ in range(3)]
    done = run(served, "models", "delete", *ids[:2])
    assert (done.returncode, done.stdout) == (0, f"{ids[0]} is deleted\n{ids[1]} is deleted\n")
    assert [model["id"] for model in httpx.get(f"{served}/v1/models").json()["data"]] == ids[2:]


def test_the_first_refusal_ends_it_and_what_is_gone_is_told(served: str, make_dataset: Make) -> None:
    first, last = make_dataset(), make_dataset()
    done = run(served, "datasets", "delete", first, "dst_none", last, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == [{"id": first, "deleted": True}]
    assert "DATASET_NOT_FOUND" in done.stderr
    assert httpx.get(f"{served}/v1/datasets/{last}").status_code == 200


@pytest.mark.parametrize("kind", ["jobs", "artifacts"])
def test_what_is_not_there_is_told(served: str, kind: str) -> None:
    done = run(served, kind, "delete", "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert "NOT_FOUND" in done.stderr


@pytest.mark.parametrize(("answer", "options", "is_kept"), [("n", [], True), ("y", [], False), ("", ["--yes"], False)])
def test_on_a_terminal_it_asks(
    served: str, make_model: Make, answer: str, options: list[str], *, is_kept: bool
) -> None:
    model = make_model()
    keyboard, terminal = pty.openpty()
    os.write(keyboard, f"{answer}\n".encode())
    command = [sys.executable, "-m", "app.cli", "models", "delete", model, "--url", served, *options]
    done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, timeout=60, check=False)
    os.close(terminal)
    os.close(keyboard)
    assert done.returncode == int(is_kept)
    assert ("cannot be undone" in done.stderr) == (not options)
    assert (httpx.get(f"{served}/v1/models/{model}").status_code == 200) == is_kept
