"""The parts of a real deployment: `slimline server|worker|beat`, which become their program by exec, and `settings`."""

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from app.cli.edge import usage
from app.cli.environment import read_settings
from app.cli.output import AsJson, print_json
from app.up.address import require_key
from app.up.parts import QUEUES, beat_command, server_command, worker_command


def server(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="API processes.")] = 1,
    insecure_open: Annotated[
        bool, typer.Option("--insecure-open", help="Let --host be reached from other machines though there is no key.")
    ] = False,
) -> None:
    """Run the API alone, settings from the environment. Other machines reach it only once there is a key.

    Example: SLIMLINE_DATABASE_URL=postgresql://… slimline server --host 0.0.0.0
    """
    with usage():
        require_key(host, read_settings(**({"insecure_open": True} if insecure_open else {})))
    _become(server_command(host, port, workers))


def worker(
    *,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Jobs at the same time; default: SLIMLINE_CONCURRENCY.")
    ] = None,
    queues: Annotated[str, typer.Option(help="Queues to take jobs from, comma-separated.")] = QUEUES,
) -> None:
    """Run one worker, settings from the environment.

    Example: slimline worker --queues cuda
    """
    _become(worker_command(concurrency or read_settings().concurrency, queues))


def beat() -> None:
    """Run the clock that has lost jobs found again. One per deployment."""
    _become(beat_command())


def settings(*, as_json: AsJson = False) -> None:
    """Print every setting with its value and meaning, passwords masked."""
    rows = read_settings().rows()
    if as_json:
        print_json([{"name": name, "value": value, "meaning": meaning} for name, value, meaning in rows])
        return
    for name, value, meaning in rows:
        typer.echo(f"{name}={value}\n    {meaning}")


def _become(command: Sequence[str]) -> None:
    os.execv(command[0], list(command))  # noqa: S606  the command comes from our own parts table
