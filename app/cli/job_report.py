"""A finished job told to a person: its comparison, notes, verdict or failure; and the exit status it means."""

import shutil

import typer

from app.cli.comparison import build_comparison_table, notes_of
from app.cli.edge import ExitCode, complain
from app.cli.output import print_table
from app.client import Resource
from app.contracts.failure import Failure
from app.contracts.measurement import Comparison
from app.contracts.states import JobState
from app.contracts.targets import Clause, Verdict


def print_report(job: Resource) -> None:
    """The comparison and the verdict on stdout; why it failed on stderr."""
    comparison = Comparison.model_validate(job.get("comparison") or {})
    if comparison.original:
        print_table(build_comparison_table(comparison, shutil.get_terminal_size((200, 0)).columns))
    for note in dict.fromkeys([*notes_of(comparison), *(job.get("notes") or [])]):
        typer.echo(f"note: {note}")
    if job.get("verdict"):
        for clause in Verdict.model_validate(job["verdict"]).clauses:
            typer.echo(_describe_clause(clause))
    if job.get("failure"):
        _tell_failure(Failure.model_validate(job["failure"]))
    elif job["state"] == JobState.CANCELLED:
        complain("the job was cancelled")


def exit_code(job: Resource) -> ExitCode:
    """What a finished job means to the shell."""
    if job["state"] != JobState.SUCCEEDED:
        return ExitCode.FAILED
    verdict = job.get("verdict")
    return ExitCode.DONE if verdict is None or verdict["met"] else ExitCode.TARGETS_MISSED


def _describe_clause(clause: Clause) -> str:
    measured = "not measured" if clause.measured is None else f"measured {clause.measured:.4g}"
    return f"target {clause.target} {clause.limit:g}: {measured}, {'met' if clause.met else 'MISSED'}"


def _tell_failure(failure: Failure) -> None:
    step = "" if failure.step is None else f" in step {failure.step + 1}"
    node = "" if failure.node is None else f" at {failure.node}"
    complain(f"the job failed{step}{node}: {failure.message} [{failure.code}]", failure.hint)
