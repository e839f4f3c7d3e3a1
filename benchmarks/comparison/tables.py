"""How tables and goals look that benchmarks print. Which columns there are is said by each benchmark."""

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.comparison.goals import Goal

WIDTH = 160
_LONGEST_NOTE = 60


def make_table(title: str, columns: Sequence[str], right: Collection[str] = ()) -> Table:
    """An empty table; the columns in `right` hold figures. A column called "note" may wrap."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column != "note")
    return table


def print_goals(goals: Sequence[Goal], console: Console) -> None:
    """Each goal with its figure and margin, and how many are met."""
    table = make_table("goals", ("", "model", "figure", "measured", "goal", "by", "note"), ("measured", "by"))
    for goal in goals:
        table.add_row(
            "MET" if goal.met else "[bold red]MISSED",
            goal.case,
            goal.what,
            _measured(goal),
            f"{goal.bound} {goal.limit:.2f}",
            "" if goal.margin is None else f"{goal.margin:+.2f}",
            escape(short(goal.note)),
        )
    console.print(table)
    console.print(_met(goals))


def print_missed(goals: Sequence[Goal]) -> None:
    """As Markdown: how many goals are met, and each that is missed."""
    print(f"\n{_met(goals)}; missed:\n")
    for goal in goals:
        if not goal.met:
            print(f"- {goal.case}: {goal.what} {_measured(goal)}, goal {goal.bound} {goal.limit:.2f} ({goal.note})")


def short(text: str) -> str:
    """One line that fits a column."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_NOTE else line[: _LONGEST_NOTE - 3] + "..."


def number(value: float | None) -> str:
    """Two digits after the point; a dash where there is no figure."""
    return "-" if value is None else f"{value:.2f}"


def _measured(goal: Goal) -> str:
    return "nothing" if goal.value is None else f"{goal.value:.2f} {goal.unit}"


def _met(goals: Sequence[Goal]) -> str:
    return f"{sum(goal.met for goal in goals)} of {len(goals)} goals are met"
