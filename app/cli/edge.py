"""Where a command ends: its exit codes, and how a refusal is told on stderr. No command catches these itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from app.contracts.failure import SlimlineError


class ExitCode(IntEnum):
    """What the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TARGETS_MISSED = 3
    INTERRUPTED = 130


@contextmanager
def usage() -> Iterator[None]:
    """A SlimlineError inside is the caller's to mend: it is printed, and the command ends with status 2."""
    try:
        yield
    except SlimlineError as refused:
        print_refusal(refused)
        raise typer.Exit(ExitCode.USAGE) from None


def print_refusal(refused: SlimlineError) -> None:
    """Write what is wrong and what to do to stderr."""
    failure = refused.failure
    where = f" ({failure.node})" if failure.node else ""
    complain(f"{failure.message}{where}", failure.hint)


def complain(message: str, hint: str | None = None) -> None:
    """Write an error and what to do about it to stderr."""
    typer.echo(f"slimline: {message}", err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)
