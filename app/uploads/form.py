"""Reading multipart/form-data as it comes: the part `file` flows on, text fields are kept. No input or output here."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.uploads import refusals

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILE_PART = "file"
MAX_PARTS = 16
MAX_FIELD_BYTES = 64 * 1024
# All text fields at their longest, and the headers of the parts.
MAX_OVERHEAD_BYTES = MAX_PARTS * (MAX_FIELD_BYTES + 16 * 1024)


class Form:
    """A form that is fed chunks of the body. Refuses what is malformed, too long, too many or given twice."""

    def __init__(self, boundary: bytes, take: Callable[[memoryview], None]) -> None:
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._take = take
        self._names: set[str] = set()
        self._ended = False
        self._header, self._value = bytearray(), bytearray()
        self._disposition = ""
        self._name, self._text = "", bytearray()
        self._parser = self._make_parser(boundary)

    @property
    def has_file(self) -> bool:
        """Whether the part `file` has come."""
        return FILE_PART in self._names

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise refusals.malformed(str(error)) from error

    def finish(self) -> None:
        """Say that the body has ended."""
        if not self._ended:
            raise refusals.malformed("it ends before its closing boundary")

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        if not boundary:
            raise refusals.malformed("its Content-Type names no boundary")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            return MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise refusals.malformed(str(error)) from error

    def _on_part_begin(self) -> None:
        self._disposition, self._text = "", bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            # Browsers and curl send names in UTF-8; the parser of options wants the bytes as latin-1.
            self._disposition = self._value.decode("latin-1")
        self._header, self._value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise refusals.malformed("a part has no name in its Content-Disposition")
        self._name = options[b"name"].decode("utf-8", "replace")
        if self._name in self._names:
            raise refusals.given_twice(self._name)
        if len(self._names) == MAX_PARTS:
            raise refusals.too_many_parts(MAX_PARTS)
        self._names.add(self._name)
        if self._name == FILE_PART and b"filename" in options:
            self.filename = options[b"filename"].decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_PART:
            self._take(memoryview(data)[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise refusals.field_too_long(self._name, MAX_FIELD_BYTES)

    def _on_part_end(self) -> None:
        if self._name != FILE_PART:
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True
