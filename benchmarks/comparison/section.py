"""`Section`: a table that is printed for people or as Markdown. What stands in it is said by each benchmark."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from benchmarks.comparison.tables import make_table


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
