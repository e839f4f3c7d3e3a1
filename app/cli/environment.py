"""The settings of a command, read from the environment; a bad one is named and ends the command."""

from typing import Any

import typer
from pydantic import ValidationError

from app.cli.edge import ExitCode, complain
from app.settings import Settings


def read_settings(**given: Any) -> Settings:
    """Settings from SLIMLINE_* variables, with `given` in their stead. Ends the command with status 2 on a bad one."""
    try:
        return Settings(**given)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_input=False):
            name = "".join(f"SLIMLINE_{part}: ".upper() for part in error["loc"])
            complain(f"{name}{error['msg']}", "`slimline settings` says what each is for")
        raise typer.Exit(ExitCode.USAGE) from None
