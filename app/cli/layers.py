"""What became of a job's layers, told to a person: a table for each step, and the advice."""

import typer
from pydantic import TypeAdapter

from app.cli.output import build_table, print_table
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
        print_table(build_table(lines, text=_TEXT))
    for line in lines_below(records, _ADVICE.validate_python(found["advice"])):
        typer.echo(line)
    if not records:
        typer.echo("nothing is told of its layers; they are known once a job has succeeded")
