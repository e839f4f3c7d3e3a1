"""Looks over the raw bytes of an ONNX file before any parser does: is it one, is all of it there, is it sanely nested.

The field numbers are those of onnx.proto. Nothing is built in memory.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.contracts.failure import SlimlineError

MOST_NESTED = 32
"""Bodies of If, Loop and Scan inside each other; real models have two or three."""
MOST_NODES = 100_000
"""Nodes, those in bodies included. Large networks have some ten thousand; each takes some milliseconds to look at."""
_MOST_PARTS = 1_000_000
"""Nodes, tensors, values, and what nodes read, make and are told: all that becomes an object in memory."""
_LARGEST = (1 << 31) - 1
_VARINT, _BYTES = 0, 2
_MODEL_FIELDS: Mapping[int, int] = {1: _VARINT, 5: _VARINT, **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _BYTES)}
_IR_VERSION, _GRAPH, _FUNCTION = 1, 7, 25
_GRAPH_NODE, _FUNCTION_NODE, _NODE_ATTRIBUTE, _ATTRIBUTE_GRAPHS = 1, 7, 5, (6, 11)
_NODE_PARTS = frozenset({1, 2, _NODE_ATTRIBUTE})
"""Inputs, outputs, attributes."""
_LONGEST_VARINT = 10

Span = tuple[int, int]


class _MalformedError(Exception):
    """The bytes are no protobuf message; `cut` tells that a field goes on after the end."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__()
        self.cut = cut


def scan(path: Path) -> None:
    """Raises SlimlineError MODEL_NOT_RECOGNIZED, MODEL_TRUNCATED, MODEL_TOO_LARGE or GRAPH_TOO_DEEP."""
    size = path.stat().st_size
    if size > _LARGEST:
        raise SlimlineError(
            "MODEL_TOO_LARGE",
            f"{size:,} bytes in one .onnx file; protobuf ends at 2 GiB",
            hint="save it with external data and send a .zip of the .onnx and its data files",
        )
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _read_model(data)
        _measure_depth(data, found)


def _read_model(data: mmap.mmap) -> list[tuple[int, Span]]:
    """The top-level fields of the file."""
    found: list[tuple[int, Span]] = []
    cut = False
    try:
        for number, wire, span in _fields(data, (0, len(data))):
            if _MODEL_FIELDS.get(number) != wire:
                raise _not_a_model()
            found.append((number, span))
    except _MalformedError as error:
        cut = error.cut
        if not cut:
            raise _not_a_model() from None
    numbers = {number for number, _ in found}
    if cut and _IR_VERSION in numbers:
        raise SlimlineError(
            "MODEL_TRUNCATED",
            f"the file ends in the middle of the model, after {len(data):,} bytes",
            hint="the upload or an earlier copy was cut off: compare its size with the original, then send it again",
        )
    if cut or _GRAPH not in numbers:
        raise _not_a_model()
    return found


def _measure_depth(data: mmap.mmap, found: list[tuple[int, Span]]) -> None:
    """Walk nodes and their bodies without recursion. Raises SlimlineError GRAPH_TOO_DEEP or GRAPH_TOO_LARGE."""
    node_fields = {_GRAPH: _GRAPH_NODE, _FUNCTION: _FUNCTION_NODE}
    waiting = [(span, node_fields[number], 0) for number, span in found if number in node_fields]
    nodes = parts = 0
    while waiting:
        span, node_field, depth = waiting.pop()
        if depth > MOST_NESTED:
            raise SlimlineError(
                "GRAPH_TOO_DEEP",
                f"bodies of If, Loop and Scan are nested more than {MOST_NESTED} deep",
                hint="flatten the control flow before exporting",
            )
        for number, part in _children(data, span):
            parts += 1
            if number != node_field:
                _refuse_more(parts, _MOST_PARTS, "parts")
                continue
            nodes += 1
            for field, attribute in _children(data, part):
                parts += field in _NODE_PARTS
                if field == _NODE_ATTRIBUTE:
                    bodies = [body for place, body in _children(data, attribute) if place in _ATTRIBUTE_GRAPHS]
                    waiting += [(body, _GRAPH_NODE, depth + 1) for body in bodies]
            _refuse_more(nodes, MOST_NODES, "nodes")
            _refuse_more(parts, _MOST_PARTS, "parts")


def _refuse_more(count: int, most: int, what: str) -> None:
    if count > most:
        raise SlimlineError(
            "GRAPH_TOO_LARGE", f"the graph has more than {most:,} {what}", hint="export loops as Loop or Scan"
        )


def _children(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Fields with a length, by number. Stops at bytes that make no sense: the parser tells what is wrong with them."""
    try:
        for number, wire, child in _fields(data, span):
            if wire == _BYTES:
                yield number, child
    except _MalformedError:
        return


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, int, Span]]:
    at, end = span
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        begin = at
        match wire:  # varint, 8 bytes, a length and so many bytes, 4 bytes
            case 0:
                _, at = _varint(data, at, end)
            case 1:
                at += 8
            case 2:
                length, begin = _varint(data, at, end)
                at = begin + length
            case 5:
                at += 4
            case _:
                raise _MalformedError(cut=False)
        if number == 0:
            raise _MalformedError(cut=False)
        if at > end:
            raise _MalformedError(cut=True)
        yield number, wire, (begin, at)


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        if at + shift >= end:
            raise _MalformedError(cut=True)
        byte = data[at + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at + shift + 1
    raise _MalformedError(cut=False)


def _not_a_model() -> SlimlineError:
    return SlimlineError(
        "MODEL_NOT_RECOGNIZED",
        "the file is no ONNX model and of no other kind that is known here",
        hint="send an ONNX model (.onnx), or a .zip of one .onnx and its external data files",
    )
