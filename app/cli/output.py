"""How commands print: JSON for machines, plain tables for people. Only the answer goes to stdout."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to stdout.")]

Limit = Annotated[int, typer.Option(min=1, help="At most this many.")]

Record = Mapping[str, Any]


def print_json(answer: Any) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout."""
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    stdout().print(table)


def print_resources(columns: Sequence[str], resources: Iterable[Record], *, as_json: bool) -> None:
    """Write a list to stdout: as JSON whole, as a table these columns of it."""
    if as_json:
        print_json(list(resources))
    else:
        print_rows(columns, ([_show(resource.get(column)) for column in columns] for resource in resources))


def print_resource(resource: Record, *, as_json: bool) -> None:
    """Write one resource to stdout: as JSON whole, as lines the fields that hold something."""
    if as_json:
        print_json(resource)
        return
    table = Table.grid(padding=(0, 2))
    for field, value in resource.items():
        if value not in (None, [], {}):
            table.add_row(field, _show(value))
    stdout().print(table)


def _show(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def stdout() -> Console:
    """A console that prints text as it is; a file or pipe gets wide lines."""
    console = Console(markup=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 200
    return console
