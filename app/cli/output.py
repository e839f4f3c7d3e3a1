"""How commands print: JSON for machines, plain tables for people. Only the answer goes to stdout."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to stdout.")]

Limit = Annotated[int, typer.Option(min=1, help="At most this many.")]

Record = Mapping[str, Any]

_WIDEST = 10_000


def print_json(answer: Any) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def print_resources(columns: Sequence[str], resources: Iterable[Record], *, as_json: bool) -> None:
    """Write a list to stdout: as JSON whole, as a table these columns of it."""
    if as_json:
        print_json(list(resources))
    else:
        table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
        for resource in resources:
            table.add_row(*(_show(resource.get(column)) for column in columns))
        print_table(table)


def print_resource(resource: Record, *, as_json: bool) -> None:
    """Write one resource to stdout: as JSON whole, as lines the fields that hold something."""
    if as_json:
        print_json(resource)
        return
    filled = {field: _show(value) for field, value in resource.items() if value not in (None, [], {})}
    width = max(map(len, filled), default=0)
    for field, text in filled.items():
        typer.echo(f"{field:<{width}}  {text}")


def build_table(lines: Sequence[Sequence[str]], *, text: Collection[str]) -> Table:
    """A table of lines of cells, the first the header; the columns in `text` start at the left, others are numbers."""
    header, *rows = lines
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in header:
        table.add_column(column, justify="left" if column in text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def print_table(table: Table) -> None:
    """Write a table to stdout at its full width: an id cut short is of no use."""
    Console(width=measure_width(table), markup=False, highlight=False).print(table)


def measure_width(table: Table) -> int:
    """Characters the table needs so that nothing in it is cut or wrapped."""
    return Console(width=_WIDEST, markup=False).measure(table).maximum


def _show(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
