"""A comparison as a table for people and spreadsheets: CSV in plain numbers, markdown in readable units."""

import csv
import io
from collections.abc import Callable, Mapping

from app.contracts.measurement import Comparison, Measurement

Cell = str | int | float | None

_COLUMNS: Mapping[str, Callable[[Measurement], Cell]] = {
    "size_bytes": lambda row: row.size_bytes,
    "size_zstd_bytes": lambda row: row.size_zstd_bytes,
    "parameters": lambda row: row.parameters,
    "nonzero": lambda row: row.nonzero,
    "macs": lambda row: row.macs,
    "weight_bits": lambda row: row.weight_bits,
    "latency_p50_ms": lambda row: row.latency_ms.p50 if row.latency_ms else None,
    "latency_p90_ms": lambda row: row.latency_ms.p90 if row.latency_ms else None,
    "peak_memory_bytes": lambda row: row.peak_memory_bytes,
    "accuracy": lambda row: row.accuracy.value if row.accuracy else None,
    "accuracy_low": lambda row: row.accuracy.ci_low if row.accuracy else None,
    "accuracy_high": lambda row: row.accuracy.ci_high if row.accuracy else None,
    "sqnr_db": lambda row: row.fidelity.sqnr_db if row.fidelity else None,
    "cosine": lambda row: row.fidelity.cosine if row.fidelity else None,
    "agreement": lambda row: row.fidelity.agreement if row.fidelity else None,
}


def to_csv(comparison: Comparison) -> str:
    """One line per row of the comparison; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", *_COLUMNS])
    for stage, row in _rows(comparison):
        writer.writerow([stage, *(column(row) for column in _COLUMNS.values())])
    return text.getvalue()


def to_markdown(comparison: Comparison) -> str:
    """A table with the rows as columns, as it reads best in an issue or a pull request."""
    rows = _rows(comparison)
    lines = [
        "| measured | " + " | ".join(stage for stage, _ in rows) + " |",
        "|---|" + "---:|" * len(rows),
    ]
    for name, column in _COLUMNS.items():
        cells = [column(row) for _, row in rows]
        if any(cell is not None for cell in cells):
            lines.append(f"| {name} | " + " | ".join(_readable(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _rows(comparison: Comparison) -> list[tuple[str, Measurement]]:
    ends = [("original", comparison.original), *((step.method, step) for step in comparison.steps)]
    return [(stage, row) for stage, row in [*ends, ("final", comparison.final)] if row is not None]


def _readable(cell: Cell) -> str:
    match cell:
        case None:
            return "-"
        case float():
            return f"{cell:.4g}"
        case int():
            return f"{cell:,}"
        case str():
            return cell
