"""Records of layers as text for people: a table of cells for each step, and lines below. Printing is elsewhere."""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence

from app.contracts.advice import Advice
from app.contracts.events import LayerRecord, Repair

_BAR = 10
STANDS_OUT = "loses most"


def tables(records: Sequence[LayerRecord]) -> Iterator[tuple[str, list[list[str]]]]:
    """For each step what to call it, and its lines of cells, the first the header; empty columns are left out."""
    for step in sorted({record.step for record in records}):
        own = [record for record in records if record.step == step]
        columns = [[title, *(cell(record) for record in own)] for title, cell in _COLUMNS]
        filled = [column for column in columns if any(column[1:])]
        yield f"step {step + 1}: {own[0].method}", [list(line) for line in zip(*filled, strict=True)]


def lines_below(records: Sequence[LayerRecord], advice: Sequence[Advice]) -> Iterator[str]:
    """The repairs tried, and the advice: why, and the recipe as an option that commands take."""
    yield from dict.fromkeys(_tried(repair) for record in records for repair in record.repairs)
    for each in advice:
        yield f"advice: {each.why}"
        yield f"  --recipe {shlex.quote(json.dumps(each.recipe))}"


def _tried(repair: Repair) -> str:
    gain = "" if repair.gain_db is None else f" {repair.gain_db:+.1f} dB,"
    return f"tried {repair.name}:{gain} {'kept' if repair.kept else 'not kept'}"


def _bits(record: LayerRecord) -> str:
    """`W8A8`: of weights and of activations."""
    weights = "" if record.bits is None else f"W{record.bits:g}"
    return weights if record.activation_bits is None else f"{weights}A{record.activation_bits}"


def _range(record: LayerRecord) -> str:
    return "" if record.range is None else f"{record.range[0]:.3g} .. {record.range[1]:.3g}"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"


def _share(record: LayerRecord) -> str:
    """A bar and the number: `#######     71.4 %`."""
    if record.error_share is None:
        return ""
    return f"{'#' * round(_BAR * record.error_share):<{_BAR}} {100 * record.error_share:5.1f} %"


def _kernel(record: LayerRecord) -> str:
    return "" if record.integer_kernel is None else "integer" if record.integer_kernel else "float"


def _remark(record: LayerRecord) -> str:
    return record.reason or (STANDS_OUT if record.advice else "")


_COLUMNS: Sequence[tuple[str, Callable[[LayerRecord], str]]] = (
    ("layer", lambda record: record.layer),
    ("operator", lambda record: record.op),
    ("bits", _bits),
    ("zeros", lambda record: "" if record.sparsity is None else f"{100 * record.sparsity:.1f} %"),
    ("range", _range),
    ("weights", lambda record: _decibels(record.sqnr_db)),
    ("output", lambda record: _decibels(record.output_sqnr_db)),
    ("share of the error", _share),
    ("kernel", _kernel),
    ("remark", _remark),
)
