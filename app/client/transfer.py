"""Files on their way: read while sent, and written under a temporary name until their sha256 is known to be right."""

import hashlib
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx

from app.client.line import Line
from app.client.problem import DownloadDamagedError, require_ok

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

TRIES = 5


class ReportingFile:
    """A file that tells how far it has been read. httpx streams it: it is never in memory as a whole."""

    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self._size = os.fstat(file.fileno()).st_size

    def fileno(self) -> int:
        """For httpx, which asks the file's length by it."""
        return self._file.fileno()

    def seek(self, offset: int) -> int:
        """For httpx, which starts at the beginning."""
        return self._file.seek(offset)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        chunk = self._file.read(size)
        self._on_bytes(self._file.tell(), self._size)
        return chunk


def download(http: httpx.Client | Line, url: str, sha256: str, to: Path, on_bytes: OnBytes) -> None:
    """Fetch `url` into `to`, going on where an earlier try, also of another process, stopped.

    Raises ApiError, httpx.TransportError after several broken lines, DownloadDamagedError.
    """
    part = to.with_name(f".{to.name}.{sha256[:16]}.part")
    for left in reversed(range(TRIES)):
        try:
            _fetch_rest(http, url, part, on_bytes)
            break
        except httpx.TransportError:
            if not left:
                raise
    if _hash(part) != sha256:
        part.unlink()
        raise DownloadDamagedError(f"what came from {url} does not have the promised sha256 {sha256}")
    part.replace(to)


def _fetch_rest(http: httpx.Client | Line, url: str, part: Path, on_bytes: OnBytes) -> None:
    """Append the missing bytes to `part`; start over where the server will not send a range."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with http.stream("GET", url, headers=headers) as response:
        if have and response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # every byte is here
        require_ok(response)
        have = have if response.status_code == HTTPStatus.PARTIAL_CONTENT else 0
        total = have + int(response.headers.get("content-length", 0))
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                on_bytes(file.tell(), total)
            file.flush()
            os.fsync(file.fileno())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
