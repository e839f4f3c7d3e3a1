"""What became of a job's layers, told to a person: a table for each step, and the advice."""

from collections.abc import Sequence

import typer
from pydantic import TypeAdapter
from rich import box
from rich.table import Table

from app.cli.output import print_table
from app.client import Resource
from app.contracts.advice import Advice
from app.contracts.events import LayerRecord
from app.contracts.layer_table import lines_below, tables

_RECORDS = TypeAdapter(list[LayerRecord])
_ADVICE = TypeAdapter(list[Advice])
_TEXT = ("layer", "operator", "share of the error", "remark")


def print_layers(found: Resource) -> None:
    """The answer of `/v1/jobs/{id}/layers` on stdout."""
    records = _RECORDS.validate_python(found["data"])
    for name, lines in tables(records):
        typer.echo(name)
        print_table(_build(lines))
    for line in lines_below(records, _ADVICE.validate_python(found["advice"])):
        typer.echo(line)
    if not records:
        typer.echo("nothing is told of its layers; they are known once a job has succeeded")


def _build(lines: Sequence[Sequence[str]]) -> Table:
    header, *rows = lines
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in header:
        table.add_column(column, justify="left" if column in _TEXT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
