"""The command line as a program: what it loads, what it says, which status it ends with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app import cli
from app.settings import Settings

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.make_commands(), arguments, prog_name="slimline")


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['slimline', '--help']\n"
        "from app.cli import main\n"
        "try: main()\n"
        "finally: print('\\n' + ' '.join(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    loaded = set(printed.splitlines()[-1].split())
    assert "Compress a model" in printed
    assert not loaded & {"httpx", "uvicorn", "sqlalchemy", "fastapi", "celery", "app.contracts", "asyncio", "yaml"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert cli.COMMANDS[name][1].split(".")[0] in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-command"], "No such command"),
        (["compress", "m.onnx", "-o", "out.onnx"], "--recipe"),
        (["up", "--port", "70000"], "--port"),
        (["up", "--host", "0.0.0.0"], "--insecure-open"),
        (["up", "--host", "example.org"], "--insecure-open"),
        (["server", "--host", "0.0.0.0"], "slimline keys create"),
    ],
)
def test_wrong_usage_ends_with_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMLINE_DATA", str(tmp_path))
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-r", "no.such"], "there is no method 'no.such'"),
        (["-r", "prune.magnitude:amount=2"], "amount"),
        (["-r", "quantize.dynamic", "--target", "max_size_ratio"], "is not `name=number`"),
        (["-r", "quantize.dynamic", "--target", "smallness=3"], "smallness"),
        (["-r", "quantize.dynamic", "--preprocess", '{"scale": 0}'], "scale"),
        (["-r", "missing.yaml"], "missing.yaml cannot be read"),
        (["-r", "quantize.dynamic"], "absent.onnx is no file"),
    ],
)
def test_compress_checks_before_it_connects(options: list[str], message: str, tmp_path: Path) -> None:
    result = run("compress", "absent.onnx", *options, "-o", str(tmp_path / "out.onnx"), "--url", NOBODY)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_server_it_says_how_to_start_one() -> None:
    result = run("models", "list", "--json", "--url", NOBODY)
    assert result.exit_code == 1
    assert "slimline up" in result.stderr
    assert not result.stdout


def test_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMLINE_CONCURRENCY", "many")
    result = run("settings")
    assert result.exit_code == 2
    assert "SLIMLINE_CONCURRENCY: " in result.stderr


def test_settings_are_all_printed_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMLINE_DATABASE_URL", "postgresql://user:hush@db/slimline")
    monkeypatch.setenv("SLIMLINE_STORAGE_SECRET_KEY", "hush")
    result = run("settings", "--json")
    rows = json.loads(result.stdout)
    assert len(rows) == len(Settings.model_fields)
    assert all(row["meaning"] for row in rows)
    assert "hush" not in result.output
    assert "postgresql://user:***@db/slimline" in run("settings").stdout
