"""The server a command talks to: its address, and how its refusals and its absence are told."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated

import typer

from app.cli.edge import ExitCode, complain, usage
from app.client import ApiError, Client, DownloadDamagedError, FileChangedError, ServerUnreachableError

DEFAULT_URL = "http://127.0.0.1:8000"

ServerUrl = Annotated[str, typer.Option("--url", envvar="SLIMLINE_URL", help="The Slimline server.")]

_OUR_MISTAKES = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


@contextmanager
def connect(url: str) -> Iterator[Client]:
    """A client; what it raises is printed, and ends the command with status 1, or 2 where the request was wrong.

    The key comes from SLIMLINE_API_KEY alone: what is on a command line, others on the machine can read.
    """
    try:
        with usage(), Client(url, os.environ.get("SLIMLINE_API_KEY")) as client:
            yield client
    except ApiError as refused:
        _tell(refused)
        raise typer.Exit(ExitCode.USAGE if refused.status in _OUR_MISTAKES else ExitCode.FAILED) from None
    except ServerUnreachableError as absent:
        complain(str(absent), "start a server with `slimline up`, or name another with --url or SLIMLINE_URL")
        raise typer.Exit(ExitCode.FAILED) from None
    except DownloadDamagedError as damaged:
        complain(str(damaged), "download it again")
        raise typer.Exit(ExitCode.FAILED) from None
    except FileChangedError as changed:
        complain(str(changed), "send it again once nothing writes to it any more")
        raise typer.Exit(ExitCode.FAILED) from None


def _tell(refused: ApiError) -> None:
    complain(f"{refused.detail} [{refused.status} {refused.code}]")
    for error in refused.errors:
        typer.echo(f"  {error.pointer}: {error.message}", err=True)
    if refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR and refused.request_id:
        typer.echo(f"  request {refused.request_id}: the server's log says more", err=True)
