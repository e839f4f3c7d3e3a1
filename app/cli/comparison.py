"""The comparison table: the original beside each step and the final artifact, in human units."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from app.cli.output import measure_width
from app.cli.quantities import UNKNOWN, show_bytes, show_count, show_ratio, show_share
from app.contracts.measurement import Accuracy, Comparison, Fidelity, Measurement, Ratios, compute_ratios

COLUMNS = ("", "size", "zstd", "params", "non-zero", "MACs", "latency p50", "accuracy (95 %)", "fidelity")
FINAL = "final"

_NO_RATIOS = Ratios()


def build_comparison_table(comparison: Comparison, width: int) -> Table:
    """One line per measured graph, or one column where lines would be over `width`. `x0.25`: ratio to the original."""
    first = comparison.original
    grid: list[Sequence[str]] = [COLUMNS]
    for label, row in _rows(comparison):
        ratios = compute_ratios(first, row) if first and row is not first else _NO_RATIOS
        grid.append([label, *_cells(row, ratios)])
    upright, turned = _build(grid), _build(list(zip(*grid, strict=True)))
    return min(upright, turned, key=measure_width) if measure_width(upright) > width else upright


def notes_of(comparison: Comparison) -> list[str]:
    """What the rows remark, each remark once."""
    return list(dict.fromkeys(note for _, row in _rows(comparison) for note in row.notes))


def _build(grid: Sequence[Sequence[str]]) -> Table:
    header, *lines = grid
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(header):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line, style="bold" if line[0] == FINAL else "")
    return table


def _rows(comparison: Comparison) -> Iterator[tuple[str, Measurement]]:
    if comparison.original:
        yield "original", comparison.original
    for number, step in enumerate(comparison.steps, start=1):
        yield f"{number} {step.method}", step
    if comparison.final:
        yield FINAL, comparison.final


def _cells(row: Measurement, ratios: Ratios) -> Iterator[str]:
    yield _with_ratio(show_bytes(row.size_bytes), ratios.size)
    yield _with_ratio(show_bytes(row.size_zstd_bytes), ratios.size_zstd)
    yield show_count(row.parameters)
    yield _with_ratio(show_count(row.nonzero), ratios.nonzero)
    yield show_count(row.macs)
    yield _with_ratio(f"{row.latency_ms.p50:.3g} ms" if row.latency_ms else UNKNOWN, ratios.latency)
    yield _show_accuracy(row.accuracy)
    yield _show_fidelity(row.fidelity)


def _with_ratio(text: str, ratio: float | None) -> str:
    return f"{text} {show_ratio(ratio)}".rstrip()


def _show_accuracy(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return UNKNOWN
    return f"{show_share(accuracy.value)} ({100 * accuracy.ci_low:.1f} to {100 * accuracy.ci_high:.1f})"


def _show_fidelity(fidelity: Fidelity | None) -> str:
    if fidelity is None:
        return UNKNOWN
    sqnr = "bit-equal" if fidelity.sqnr_db is None else f"{fidelity.sqnr_db:.1f} dB"
    return sqnr if fidelity.agreement is None else f"{sqnr}, {show_share(fidelity.agreement)} same"
