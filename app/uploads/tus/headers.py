"""tus 1.0 in headers: what a request says, checked, and what every answer says. No input, output or rows here."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.uploads import refusals as bodies
from app.uploads.filename import clean_filename
from app.uploads.tus import refusals

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum,expiration"
PIECE_TYPE = "application/offset+octet-stream"
DIGEST_BYTES: Mapping[str, int] = {"sha1": 20, "sha256": 32, "sha512": 64, "md5": 16}
"""Checksum algorithms, by the names tus and hashlib give them; sha1 is the one every tus server knows."""
MAX_METADATA = 4096
_FILENAME_KEYS = ("filename", "name")
_NUMBER = re.compile(r"[0-9]{1,18}")  # below 2**63: a database holds it


@dataclass(frozen=True)
class Checksum:
    """What the body of one request must hash to."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True)
class Metadata:
    """`Upload-Metadata` as it came, and the file's name in it; both may be empty."""

    header: str
    filename: str


class TusResumable:
    """Has every answer below `path`, refusals of the layers within too, carry `Tus-Resumable`."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request."""

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        is_tus = scope["type"] == "http" and scope["path"].startswith(self._path)
        await self._app(scope, receive, send_with_version if is_tus else send)


def require_version(headers: Headers) -> None:
    """Raises the 412 problem for a client that speaks no tus 1.0."""
    if headers.get("tus-resumable") != VERSION:
        raise refusals.wrong_version(VERSION)


def require_piece(headers: Headers) -> None:
    """Raises the 415 problem unless the body is said to be a piece of a file."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != PIECE_TYPE:
        raise refusals.no_piece(media_type, PIECE_TYPE)
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise bodies.encoded(encoding)


def has_body(headers: Headers) -> bool:
    """Whether a request that creates an upload brings its first bytes (creation-with-upload)."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def read_number(headers: Headers, name: str) -> int:
    """A header that is a count of bytes. Raises the 400 problem."""
    text = headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise refusals.bad_header(name, "must be a whole number of bytes")
    return int(text)


def read_checksum(headers: Headers) -> Checksum | None:
    """`Upload-Checksum`, if there is one. Raises the 400 problem for what cannot be compared."""
    given = headers.get("upload-checksum")
    if given is None:
        return None
    algorithm, _, coded = given.partition(" ")
    digest = _decode("Upload-Checksum", coded)
    if DIGEST_BYTES.get(algorithm) != len(digest):
        raise refusals.bad_header("Upload-Checksum", f"must be one of {', '.join(DIGEST_BYTES)} and a digest in Base64")
    return Checksum(algorithm, digest)


def read_metadata(headers: Headers) -> Metadata:
    """`Upload-Metadata`. Raises the 400 problem."""
    given = headers.get("upload-metadata", "")
    if len(given) > MAX_METADATA or not given.isascii():
        raise refusals.bad_header("Upload-Metadata", f"must be at most {MAX_METADATA} ASCII characters")
    pairs: dict[str, bytes] = {}
    for pair in filter(None, map(str.strip, given.split(","))):
        key, _, coded = pair.partition(" ")
        if key in pairs:
            raise refusals.bad_header("Upload-Metadata", "has a key twice")
        pairs[key] = _decode("Upload-Metadata", coded)
    named = [pairs[key] for key in _FILENAME_KEYS if key in pairs]
    return Metadata(given, clean_filename(named[0].decode("utf-8", "replace")) if named else "")


def show_time(time: datetime) -> str:
    """As `Upload-Expires` has it."""
    return format_datetime(time, usegmt=True)


def _decode(header: str, coded: str) -> bytes:
    try:
        return base64.b64decode(coded, validate=True)
    except binascii.Error:
        raise refusals.bad_header(header, "holds what is no Base64") from None
