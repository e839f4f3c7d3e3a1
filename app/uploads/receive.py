"""One upload, from the first byte of the body to a kept blob: multipart and bare bytes come in here and look alike."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from pydantic import JsonValue
from python_multipart.multipart import parse_options_header

from app.storage import Blob, BlobStore
from app.uploads import refusals
from app.uploads.body import read_body
from app.uploads.fields import Fields, decode_texts, parse_fields
from app.uploads.filename import clean_filename, filename_of
from app.uploads.form import MAX_OVERHEAD_BYTES, Form
from app.uploads.sink import Sink, open_sink

MULTIPART = "multipart/form-data"
BARE = frozenset(
    {
        "",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # what `curl --data-binary` says of any file
        "application/onnx",
        "application/x-onnx",
        "application/protobuf",
        "application/x-protobuf",
        "application/zip",
        "application/x-zip-compressed",
    }
)

_AS_IT_IS = "identity"

# A line that broke without a word would else hold its temporary file for ever.
STALL_S = 120.0


@dataclass(frozen=True)
class Upload:
    """A file that has come whole, with what was said of it."""

    filename: str
    fields: Mapping[str, JsonValue]
    keep: Callable[[], Awaitable[Blob]]
    """Has the file stored durably. Check the fields first: what is kept stays."""
    are_texts: bool = True
    """Whether the fields came as the texts of a form or a query, not as JSON."""

    def parse(self, kind: type[Fields]) -> Fields:
        """The fields, checked. Raises 422 problems that point at the field."""
        return parse_fields(kind, decode_texts(self.fields) if self.are_texts else self.fields)


@asynccontextmanager
async def receive_upload(request: Request, store: BlobStore, max_bytes: int) -> AsyncIterator[Upload]:
    """Receive the body of `request`. Unless the block calls `keep`, nothing of the file is left after it.

    `fields` are the query parameters and the form's text fields. Raises a `Problem` for every body that is not taken.
    """
    encoding = request.headers.get("content-encoding", _AS_IT_IS)
    if encoding != _AS_IT_IS:
        raise refusals.encoded(encoding)
    media_type, options = parse_options_header(request.headers.get("content-type"))
    kind = media_type.decode("latin-1")
    if kind != MULTIPART and kind not in BARE:
        raise refusals.wrong_media_type(kind)
    overhead_bytes = MAX_OVERHEAD_BYTES if kind == MULTIPART else 0
    chunks = read_body(request, max_bytes + overhead_bytes, STALL_S, refusals.too_large(max_bytes))
    async with open_sink(store, max_bytes) as sink:
        if kind == MULTIPART:
            filename, fields = await _receive_form(chunks, options.get(b"boundary", b""), sink)
        else:
            filename, fields = filename_of(request.headers.get("content-disposition")), {}
            await _receive_bare(chunks, sink)
        if sink.size_bytes == 0:
            raise refusals.empty_file()
        yield Upload(filename, {**request.query_params, **fields}, sink.commit)


async def _receive_form(chunks: AsyncIterator[bytes], boundary: bytes, sink: Sink) -> tuple[str, dict[str, str]]:
    form = Form(boundary, sink.take)
    async for chunk in chunks:
        form.feed(chunk)
        await sink.drain()
    form.finish()
    if not form.has_file:
        raise refusals.no_file()
    return clean_filename(form.filename or ""), form.fields


async def _receive_bare(chunks: AsyncIterator[bytes], sink: Sink) -> None:
    async for chunk in chunks:
        sink.take(memoryview(chunk))
        await sink.drain()
