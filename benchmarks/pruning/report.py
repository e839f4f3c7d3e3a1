"""How the results look: tables for people, Markdown for the documents, JSON for machines. Nothing is judged here."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from benchmarks.comparison.goals import Goal
from benchmarks.comparison.section import Section, print_document, print_report
from benchmarks.comparison.tables import number, short
from benchmarks.pruning.accuracy import Comparison
from benchmarks.pruning.analysis import Analysis
from benchmarks.pruning.rows import AMOUNTS, Pruned, Row, equal_to

LEGEND = """\
groups: channel groups, of them h heads and u hidden units. par, MACs: share of the original's that is left; x: latency
of the original over the pruned one's, one thread, one sample, above 1 is faster; attention, MLP: share of the width
left in the layer that lost least at 50 %. = MACs: x of ours with as many MACs as Torch-Pruning's at 50 %. off: largest
difference from the model with half of the same channels masked, over the largest output. analysis, all: seconds of
finding groups, and from file to file. *: kept from an earlier run."""
_KINDS = {"head": "h", "hidden unit": "u"}


@dataclass(frozen=True)
class Results:
    """Everything that was measured and judged."""

    samples: Sequence[Row]
    duels: Sequence[Row]
    comparisons: Sequence[Comparison]
    analyses: Sequence[Analysis]
    goals: Sequence[Goal]

    def as_json(self) -> dict[str, Any]:
        """All of it, and by how much each goal is met."""
        return {
            "samples": [asdict(row) for row in self.samples],
            "native": [asdict(row) for row in self.duels],
            "accuracy": [asdict(each) for each in self.comparisons],
            "analysis": [asdict(each) for each in self.analyses],
            "goals": [asdict(goal) | {"met": goal.met, "margin": goal.margin} for goal in self.goals],
        }


def print_tables(results: Results, console: Console) -> None:
    """For people."""
    print_report(_sections(results), LEGEND, results.goals, console)


def print_markdown(results: Results) -> None:
    """For docs/pruning.md."""
    print_document(_sections(results), results.goals)


def _sections(results: Results) -> Sequence[Section]:
    return (_sample_section(results), _duel_section(results), _score_section(results), _analysis_section(results))


def _sample_section(results: Results) -> Section:
    lines = [
        (row.case, _groups(row), *_amount_cells(row), *_width_cells(row), *_taken_cells(row)) for row in results.samples
    ]
    columns = ("model", "groups", *_AMOUNT_COLUMNS, "attention", "MLP", *_TAKEN_COLUMNS)
    return Section("Sample models", columns, ("model", "groups"), lines, _failures(results.samples))


def _duel_section(results: Results) -> Section:
    lines = [
        (row.case, row.tool + _kept(row), _groups(row), *_amount_cells(row), _equal_cell(row), *_taken_cells(row))
        for row in results.duels
    ]
    columns = ("module", "tool", "groups", *_AMOUNT_COLUMNS, "= MACs", *_TAKEN_COLUMNS)
    return Section("Native modules", columns, ("module", "tool", "groups"), lines, _failures(results.duels))


def _score_section(results: Results) -> Section:
    lines = [
        (each.case, each.criterion, each.tool, *map(number, (each.original, each.top1, each.macs)))
        for comparison in results.comparisons
        for each in comparison.scores
    ]
    columns = ("model", "criterion", "tool", "original top-1 %", "top-1 %", "MACs")
    failures = [
        f"{each.case}, {each.criterion}, {each.tool}: {each.failure}"
        for comparison in results.comparisons
        for each in comparison.scores
        if each.failure
    ]
    title = "One-shot at 30 %, statistics estimated again, no training"
    return Section(title, columns, ("model", "criterion", "tool"), lines, failures)


def _analysis_section(results: Results) -> Section:
    lines = [
        (each.case, f"{each.parameters / 1e6:.1f}", str(each.groups), number(each.seconds)) for each in results.analyses
    ]
    failures = [f"{each.case}: {each.failure}" for each in results.analyses if each.failure]
    return Section("Large models", ("model", "10^6 parameters", "groups", "analysis s"), ("model",), lines, failures)


def _failures(rows: Sequence[Row]) -> list[str]:
    """Each reason once, with what was asked when it first came."""
    found: dict[tuple[str, str, str], str] = {}
    for row in rows:
        for amount, pruned in row.at.items():
            if pruned.failure:
                found.setdefault((row.case, row.tool, pruned.failure), amount)
    return [f"{case}, {tool}, {amount}: {short(failure)}" for (case, tool, failure), amount in found.items()]


_AMOUNT_CELLS: Sequence[tuple[str, Callable[[Pruned], float | None]]] = (
    ("par", lambda pruned: pruned.left.parameters if pruned.left else None),
    ("MACs", lambda pruned: pruned.left.macs if pruned.left else None),
    ("x", lambda pruned: pruned.speed),
)
_TAKEN_COLUMNS = ("off", "analysis s", "all s")
_AMOUNT_COLUMNS = tuple(f"{title} {amount}" for amount in AMOUNTS for title, _ in _AMOUNT_CELLS)


def _amount_cells(row: Row) -> list[str]:
    return [number(cell(row.at[amount])) for amount in AMOUNTS for _, cell in _AMOUNT_CELLS]


def _width_cells(row: Row) -> list[str]:
    left = row.at["50 %"].left
    return [number(left.attention if left else None), number(left.mlp if left else None)]


def _equal_cell(row: Row) -> str:
    equal = row.at.get(equal_to("50 %"))
    return number(equal.speed if equal else None)


def _taken_cells(row: Row) -> list[str]:
    answer = row.at["50 %"].run.answer
    off = "-" if answer.deviation is None else f"{answer.deviation:.0e}"
    return [off, number(answer.analysis_s), number(answer.work_s)]


def _groups(row: Row) -> str:
    groups = row.first.run.answer.groups
    kinds = [f"{groups[kind]} {letter}" for kind, letter in _KINDS.items() if groups.get(kind)]
    return str(sum(groups.values())) + (f" ({', '.join(kinds)})" if kinds else "")


def _kept(row: Row) -> str:
    return "*" if row.first.run.day else ""
