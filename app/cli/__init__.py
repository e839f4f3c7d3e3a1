"""The `slimline` command: its table of commands. Each is imported when called, so that `--help` answers at once."""

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("app.cli.up:up", "Run everything on this machine: API, worker, broker, database. Ctrl-C stops it."),
    "compress": ("app.cli.compress:compress", "Compress a model through a running service and download the result."),
    "models": ("app.cli.models:models", "Upload, list and show models."),
    "datasets": ("app.cli.datasets:datasets", "Upload, list and show datasets."),
    "jobs": ("app.cli.jobs:jobs", "Submit, list, watch and cancel jobs."),
    "artifacts": ("app.cli.artifacts:artifacts", "List, show and download what jobs made."),
    "methods": ("app.cli.methods:methods", "List the compression methods and their options."),
    "webhooks": ("app.cli.webhooks:webhooks", "Tell other services of what happens, and see what was told."),
    "keys": ("app.cli.keys:keys", "Make, list, rotate and revoke API keys, in the database itself."),
    "server": ("app.cli.deployment:server", "Run the API alone, settings from the environment."),
    "worker": ("app.cli.deployment:worker", "Run one worker, settings from the environment."),
    "beat": ("app.cli.deployment:beat", "Run the clock that has lost jobs found again. One per deployment."),
    "migrate": ("app.cli.migrate:migrate", "Bring the database to the newest schema."),
    "settings": ("app.cli.deployment:settings", "Print every setting with its value and meaning."),
}
"""Name -> (`module:attribute` of a function or a Typer group, what it does)."""


class Commands(TyperGroup):
    """The commands of the table, as names until one is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the called name by its command."""
        if args and args[0] in COMMANDS:
            self.add_command(_load(args[0]), args[0])
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    target, summary = COMMANDS[name]
    module, attribute = target.split(":")
    command = getattr(importlib.import_module(module), attribute)
    if not isinstance(command, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(command)
        command = single
    loaded = get_command(command)
    loaded.name = name
    loaded.help = loaded.help or summary
    return loaded


def describe() -> None:
    """Slimline makes trained networks smaller and faster, and measures what that cost.

    Start with `slimline up`; then, in another terminal, `slimline compress MODEL --recipe quantize.dynamic -o OUT`.
    """


def make_commands() -> typer.Typer:
    """The whole command line."""
    commands = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.callback()(describe)
    return commands


def main() -> None:
    """Run the command line."""
    make_commands()(prog_name="slimline")
