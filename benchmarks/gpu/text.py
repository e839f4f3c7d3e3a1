"""Text for a terminal without any library: tables, goals. What is measured is said in the sections."""

from collections.abc import Sequence

from benchmarks.comparison.goals import Goal


def print_table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Words to the left in the first column, the others to the right."""
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    print(f"\n{title}")
    for line in (columns, *lines):
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join((line[0].ljust(len(first)), *others)).rstrip())


def print_goals(goals: Sequence[Goal]) -> None:
    """Each with its figure, and how many are met."""
    print()
    for goal in goals:
        measured = "nothing" if goal.value is None else f"{goal.value:.3g} {goal.unit}".rstrip()
        told = f" ({goal.note})" if goal.note else ""
        judged = "MET   " if goal.met else "MISSED"
        print(f"{judged} {goal.case}: {goal.what} {measured}, goal {goal.bound} {goal.limit:g}{told}")
    print(f"{sum(goal.met for goal in goals)} of {len(goals)} goals are met")
