"""`slimline methods`: the catalogue as the server has it."""

from typing import Annotated

import typer

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.output import AsJson, print_resource, print_resources

methods = typer.Typer(no_args_is_help=True, help="List the compression methods and their options.")


@methods.command("list")
def list_methods(*, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the methods."""
    with connect(url) as client:
        print_resources(("name", "summary", "works_on"), client.list("/v1/methods", limit=200), as_json=as_json)


@methods.command()
def show(
    method: Annotated[str, typer.Argument(help="As quantize.static.")],
    *,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show a method: what it does, what it needs, its options."""
    with connect(url) as client:
        print_resource(client.get(f"/v1/methods/{method}"), as_json=as_json)
