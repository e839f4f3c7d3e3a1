"""`Section`: a table that is printed for people or as Markdown, and reports of them. Benchmarks fill their own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from benchmarks.comparison.goals import Goal
from benchmarks.comparison.tables import make_table, print_goals, print_missed


@dataclass(frozen=True)
class Section:
    """A table as text. Columns not among `words` hold figures; `failures` stand below it."""

    title: str
    columns: Sequence[str]
    words: Collection[str]
    lines: Sequence[Sequence[str]]
    failures: Sequence[str] = ()

    def print_to(self, console: Console) -> None:
        """For people."""
        table = make_table(self.title, self.columns, set(self.columns) - {*self.words})
        for line in self.lines:
            table.add_row(*map(escape, line))
        console.print(table)
        for failure in self.failures:
            console.print(failure, markup=False, highlight=False, soft_wrap=True)

    def print_markdown(self) -> None:
        """For documents."""
        print(f"\n{self.title}\n\n| " + " | ".join(self.columns) + " |")
        print("|" + "".join("---|" if column in self.words else "---:|" for column in self.columns))
        for line in self.lines:
            print("| " + " | ".join(line) + " |")
        print()
        for failure in self.failures:
            print(f"- {failure}")


def print_report(sections: Sequence[Section], legend: str, goals: Sequence[Goal], console: Console) -> None:
    """For people: all sections that have anything, what their words mean, and the goals."""
    for section in sections:
        if section.lines:
            section.print_to(console)
    console.print(legend, markup=False, highlight=False)
    print_goals(goals, console)


def print_document(sections: Sequence[Section], goals: Sequence[Goal]) -> None:
    """For documents: the same with the goals that are missed."""
    for section in sections:
        if section.lines:
            section.print_markdown()
    print_missed(goals)
