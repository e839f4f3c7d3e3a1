"""How the results look: tables for people, Markdown for the README, JSON for machines. Nothing is judged here."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.comparison.goals import Goal
from benchmarks.comparison.tables import make_table, number, print_goals, print_missed, short
from benchmarks.quantization.latency import SETTINGS
from benchmarks.quantization.quality import Quality, Reference
from benchmarks.quantization.rows import Row
from benchmarks.quantization.sections import MIB, SAMPLE_COUNTS, Memory, told_failure

_QUALITY: Sequence[tuple[str, Callable[[Quality], str]]] = (
    ("top-1 %", lambda quality: number(quality.accuracy)),
    ("lost pt", lambda quality: number(quality.drop)),
    ("same %", lambda quality: f"{quality.agreement:.2f}"),
    ("SQNR dB", lambda quality: "bit-equal" if quality.sqnr_db is None else f"{quality.sqnr_db:.1f}"),
    ("size", lambda quality: f"{quality.size_ratio:.2f}"),
    ("kernels", lambda quality: f"{quality.integer_kernels}/{quality.float_kernels}/{quality.conversions}"),
)
_TITLES = tuple(title for title, _ in _QUALITY)
_MEASURED = (*_TITLES, *(setting.name for setting in SETTINGS))
_TAKEN = ("wall s", "CPU s", "+ start", "job s", "peak MiB", "+ MiB")
LEGEND = """\
same: predictions equal to the float model's. kernels: integer/float/conversions that ONNX Runtime runs. 1t, 2t: latency
of the float model over the quantized one's on that many threads, above 1 is faster; b16: batches of 16. wall: file to
file in a process of its own; CPU: of all its threads; + start: with interpreter and imports; job: all of compress(),
with its checks and measurements. peak MiB: of that process; + MiB: what of it came after its imports. *: kept from an
earlier run."""


@dataclass(frozen=True)
class Results:
    """Everything that was measured and judged."""

    rows: Sequence[Row]
    memory: Sequence[Memory]
    int4: Sequence[Row]
    goals: Sequence[Goal]

    def as_json(self) -> dict[str, Any]:
        """All of it, and by how much each goal is met."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "memory": {"samples": SAMPLE_COUNTS, "peak_mib": [asdict(each) for each in self.memory]},
            "int4": [asdict(row) for row in self.int4],
            "goals": [asdict(goal) | {"met": goal.met, "margin": goal.margin} for goal in self.goals],
        }


def print_case(reference: Reference, rows: Sequence[Row], console: Console) -> None:
    """One model's table, a line for each tool, and why some have no figures."""
    accuracy = reference.accuracy
    told = "has no labels" if accuracy is None else f"has top-1 {accuracy:.2f} %"
    table = make_table(
        f"{reference.model.stem}: float {told}, {len(reference.data.x)} evaluation samples",
        ("tool", *_MEASURED, *_TAKEN),
        (*_MEASURED, *_TAKEN),
    )
    for row in rows:
        start = f"{row.run.total_s:.1f}" if row.run.model else "-"
        times = [*_time_cells(row), start, number(row.compress_s)]
        table.add_row(_named(row), *_quality_cells(row), *_speed_cells(row), *times, *_memory_cells(row))
    console.print(table)
    for row in rows:
        if row.failure:
            console.print(f"{row.tool.name}: {short(row.failure)}", markup=False)


def print_rest(results: Results, console: Console) -> None:
    """What comes after the models: memory, 4-bit weights and the goals."""
    console.print(LEGEND, markup=False, highlight=False)
    if results.memory:
        _print_memory(results.memory, console)
    if results.int4:
        _print_int4(results.int4, console)
    print_goals(results.goals, console)


def print_markdown(results: Results) -> None:
    """The README's table, every tool's line of every model, and the goals that are missed."""
    speeds = [setting.name for setting in SETTINGS if setting.has_goal]
    columns = ("lost pt", "SQNR dB", "size", "kernels", *speeds, "wall s", "CPU s", "peak MiB", "+ MiB")
    print("| model | tool | " + " | ".join(columns) + " |")
    print("|---|---|" + "---:|" * len(columns))
    for row in results.rows:
        if row.quality:
            cells = dict(zip(_TITLES, _quality_cells(row), strict=True))
            shown = [cells[title] for title in columns[:4]] + _speed_cells(row)[: len(speeds)]
            print("| " + " | ".join((row.case, row.tool.name, *shown, *_time_cells(row), *_memory_cells(row))) + " |")
    print_missed(results.goals)


def _print_memory(found: Sequence[Memory], console: Console) -> None:
    table = make_table("peak memory of calibrating, MiB", ("tool", *(f"{count} samples" for count in SAMPLE_COUNTS)))
    for each in found:
        table.add_row(each.tool, *map(number, each.peaks), escape(short(each.failure)))
    console.print(table)


def _print_int4(rows: Sequence[Row], console: Console) -> None:
    table = make_table("4-bit weights", ("model", "tool", *_TITLES, "wall s", "CPU s"), (*_TITLES, "wall s", "CPU s"))
    for row in rows:
        table.add_row(
            row.case, row.tool.name, *_quality_cells(row), _time_cells(row)[0], escape(short(told_failure(row)))
        )
    console.print(table)


def _named(row: Row) -> str:
    return row.tool.name + ("*" if row.run.day else "")


def _quality_cells(row: Row) -> list[str]:
    return [cell(row.quality) if row.quality else "-" for _, cell in _QUALITY]


def _speed_cells(row: Row) -> list[str]:
    return [f"{row.speed[setting.name]:.2f}" if row.speed else "-" for setting in SETTINGS]


def _time_cells(row: Row) -> list[str]:
    """Wall time and processor time."""
    return [f"{seconds:.2f}" if row.run.model else "-" for seconds in (row.run.answer.work_s, row.run.answer.cpu_s)]


def _memory_cells(row: Row) -> list[str]:
    """In all, and what of it came after the imports."""
    answer = row.run.answer
    sizes = answer.peak_bytes, answer.peak_bytes - answer.before_bytes
    return [f"{size / MIB:.0f}" if row.run.model else "-" for size in sizes]
