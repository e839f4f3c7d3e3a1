"""How results look in a terminal: a progress line and plain-text tables. Words only; nothing is computed here."""

import sys
from collections.abc import Callable, Collection, Iterable, Sequence

from app.contracts.advice import advise_job, advise_layers
from app.contracts.events import EngineEvent, LayerRecord, Log, Progress, Trained
from app.contracts.failure import Failure
from app.contracts.layer_table import lines_below, tables
from app.contracts.measurement import Accuracy, Comparison, Measurement
from app.contracts.recipe import Step
from app.contracts.targets import Verdict

_WIDTH = 100
_MINUTE = 60


class ProgressLine:
    """Shows events on standard error: one line rewritten in a terminal, log lines alone elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def __call__(self, event: EngineEvent) -> None:
        """Show one event."""
        match event:
            case Log(level=level, message=message):
                self._print(f"{level}: {message}")
            case Trained():
                self._print(str(event))
            case Progress() if self._live:
                eta = "" if event.eta_s is None else f", {_duration(event.eta_s)} left"
                line = f"{event.fraction:4.0%}  step {event.step}/{event.steps} {event.phase}: {event.message}{eta}"
                sys.stderr.write(f"\r{line[:_WIDTH]:<{_WIDTH}}")
                sys.stderr.flush()
            case _:
                pass

    def end(self) -> None:
        """Leave the line, so that what comes next starts on a fresh one."""
        if self._live:
            sys.stderr.write("\r" + " " * _WIDTH + "\r")

    def _print(self, text: str) -> None:
        self.end()
        sys.stderr.write(text + "\n")


def format_failure(failure: Failure) -> str:
    """Code, message, place and hint, on a line each."""
    place = [f"step {failure.step + 1}"] if failure.step is not None else []
    place += [f"at {failure.node}"] if failure.node else []
    lines = [f"{failure.code}: {failure.message}", ", ".join(place), failure.hint or ""]
    return "\n  ".join(line for line in lines if line)


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned first column, right-aligned others."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


_Cell = Callable[[Measurement], str | None]
_ROWS: Sequence[tuple[str, _Cell, str | None]] = (
    ("size", lambda row: _bytes(row.size_bytes), "size"),
    ("size, zstd", lambda row: _bytes(row.size_zstd_bytes), "size_zstd"),
    ("parameters", lambda row: f"{row.parameters:,}", "parameters"),
    ("non-zero", lambda row: f"{row.nonzero:,}", "nonzero"),
    ("MACs", lambda row: None if row.macs is None else f"{row.macs:,}", "macs"),
    ("bits per weight", lambda row: None if row.weight_bits is None else f"{row.weight_bits:.1f}", None),
    ("latency p50", lambda row: f"{row.latency_ms.p50:.3f} ms" if row.latency_ms else None, "latency"),
    ("latency p90", lambda row: f"{row.latency_ms.p90:.3f} ms" if row.latency_ms else None, None),
    ("peak memory", lambda row: _bytes(row.peak_memory_bytes), "peak_memory"),
    ("accuracy", lambda row: f"{row.accuracy.value:.4f} {row.accuracy.metric}" if row.accuracy else None, None),
    ("  95 % interval", lambda row: _interval(row.accuracy) if row.accuracy else None, None),
    ("SQNR", lambda row: _decibels(row.fidelity.sqnr_db) if row.fidelity else None, None),
    ("cosine", lambda row: _share(row.fidelity.cosine) if row.fidelity else None, None),
    ("agreement", lambda row: _share(row.fidelity.agreement) if row.fidelity else None, None),
)


def format_comparison(comparison: Comparison) -> str:
    """The original beside every step but the last and the final artifact, with the ratio of the two ends."""
    columns = [("original", comparison.original), *((step.method, step) for step in comparison.steps[:-1])]
    columns.append(("final", comparison.final))
    shown = [(name, row) for name, row in columns if row is not None]
    ratios = comparison.ratios.model_dump() if comparison.ratios else {}
    body = []
    for title, cell, ratio in _ROWS:
        cells = [cell(row) or "-" for _, row in shown]
        if any(text != "-" for text in cells):
            value = ratios.get(ratio) if ratio else None
            body.append([title, *cells, "" if value is None else f"x {value:.2f}"])
    return format_table(["", *(name for name, _ in shown), "ratio"], body)


def format_layers(records: Sequence[LayerRecord], recipe: Sequence[Step], given: Collection[str]) -> str:
    """What became of each layer, a table for each step, and advice; `given` are the roles of the data."""
    shown = tables(advise_layers(records, recipe))
    parts = [text for name, (header, *rows) in shown for text in ("", name, format_table(header, rows))]
    return "\n".join([*parts, "", *lines_below(records, advise_job(records, recipe, given))])


def format_verdict(verdict: Verdict) -> str:
    """Each target with what was measured for it."""
    lines = [
        f"{'met' if clause.met else 'MISSED':7}{clause.target} {clause.limit:g}: "
        + ("not measured" if clause.measured is None else f"{clause.measured:g}")
        for clause in verdict.clauses
    ]
    return "\n".join(["targets met" if verdict.met else "targets missed", *lines])


def _bytes(size: int | None) -> str | None:
    return None if size is None else f"{size:,} B"


def _interval(accuracy: Accuracy) -> str:
    return f"{accuracy.ci_low:.4f} .. {accuracy.ci_high:.4f}"


def _decibels(value: float | None) -> str:
    return "bit-equal" if value is None else f"{value:.1f} dB"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < _MINUTE else f"{seconds / _MINUTE:.0f} min"
