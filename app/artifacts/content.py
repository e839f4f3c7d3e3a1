"""Serving a blob: a range, conditions, digest, file name (RFC 9110, 9530, 6266). Which blob it is, the slices know."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from anyio import CancelScope
from anyio.to_thread import run_sync
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.artifacts.ranges import find_range
from app.errors import documented
from app.preconditions import matches
from app.storage import BlobStore

MEDIA_TYPE = "application/octet-stream"

_BYTES = {"schema": {"type": "string", "format": "binary"}, "example": "(the bytes)"}

# The `responses` of a route that answers with `serve`, for the OpenAPI document.
CONTENT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file", "content": {MEDIA_TYPE: _BYTES}},
    206: {"description": "The part that Range asks for", "content": {MEDIA_TYPE: _BYTES}},
    304: {"description": "The client has these bytes: If-None-Match names their ETag"},
    **documented(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
}


@dataclass(frozen=True)
class Content:
    """A stored file and the name it is offered under."""

    sha256: str
    size_bytes: int
    filename: str

    @property
    def etag(self) -> str:
        """Strong: the digest of the bytes."""
        return f'"{self.sha256}"'


async def serve(request: Request, store: BlobStore, content: Content) -> Response:
    """The answer to GET or HEAD. Raises RANGE_NOT_SATISFIABLE, BLOB_MISSING and BLOB_CORRUPT.

    The first chunk is read before the answer starts, so that a fault known by then is still a problem document. One
    found later breaks the transfer off: the client never takes a damaged file for a whole one.
    """
    headers = _headers(content)
    if matches(request.headers.get("if-none-match", ""), content.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(content.size_bytes)}, media_type=MEDIA_TYPE)
    status, part = HTTPStatus.OK, find_range(request.headers, content.etag, content.size_bytes)
    start, stop = part or (0, content.size_bytes)
    if part:
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size_bytes}"
    headers["Content-Length"] = str(stop - start)
    chunks = store.read(content.sha256, start, stop)
    first = await run_sync(next, chunks, b"")
    return StreamingResponse(_read_ahead(first, chunks), status, headers, MEDIA_TYPE)


async def _read_ahead(first: bytes, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks; a thread reads and hashes the next one while one is sent."""
    chunk, reading = first, None
    try:
        while chunk:
            reading = asyncio.create_task(run_sync(next, chunks, b""))
            yield chunk
            chunk = await reading
    finally:
        with CancelScope(shield=True):
            if reading:
                await asyncio.wait([reading])


def _headers(content: Content) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(content.sha256)).decode()
    return {
        "ETag": content.etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{digest}:",
        "Content-Disposition": content_disposition(content.filename),
        "Cache-Control": "private, no-cache",
    }


def content_disposition(filename: str) -> str:
    """Offer to save as `filename`: in ASCII for old clients, in UTF-8 for the rest (RFC 6266)."""
    plain = "".join(character if character.isalnum() or character in "._- " else "_" for character in filename)
    plain = plain.encode("ascii", "replace").decode().replace("?", "_")
    extended = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'attachment; filename="{plain}"{extended}'
