"""A large file by tus 1.0: in pieces with checksums, going on by itself where a line broke or a process ended."""

import base64
import hashlib
import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx

from app.client.line import Line
from app.client.memory import UploadMemory
from app.client.patience import Pauses, asks_to_wait, wished_pause_s
from app.client.problem import ApiError, FileChangedError, require_ok
from app.client.transfer import OnBytes

RESUMABLE_FROM_BYTES = 64 * 1024**2
PIECE_BYTES = 16 * 1024**2
PATIENCE_S = 300.0
"""How long no byte may get through before it is given up."""

_LEAST_PIECE_BYTES = 256 * 1024
_SENT_AT_ONCE = 256 * 1024
_TIMEOUT = httpx.Timeout(30, read=600)  # the last piece is answered when the server has put the file together
_TUS = {"Tus-Resumable": "1.0.0"}
_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_DAMAGED = 460
# The offset moved, the piece was damaged or came too slowly, or what lies between us and the server is away.
_ASK_WHERE = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, _DAMAGED, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
)


class ResumableUpload:
    """Sends an open file to `/v1/uploads`. What an earlier process had sent of the same file is not sent again."""

    def __init__(self, line: Line, server: str, path: Path, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._line, self._path, self._file, self._on_bytes = line, path, file, on_bytes
        self._stat = os.fstat(file.fileno())
        self._memory = UploadMemory(server, path, self._stat)
        self._piece_bytes = PIECE_BYTES

    def send(self) -> str:
        """The id of the upload, which is whole then. Raises ApiError, httpx.TransportError, FileChangedError."""
        url = self._memory.recall()
        if url is None or not self._is_there(url):
            url = self._begin()
            self._memory.keep(url)
        self._push(url)
        return url.rpartition("/")[2]

    def forget(self) -> None:
        """The upload is not needed any more."""
        self._memory.forget()

    def _begin(self) -> str:
        name = base64.b64encode(self._path.name.encode("utf-8", "replace")).decode()
        headers = {**_TUS, "Upload-Length": str(self._stat.st_size), "Upload-Metadata": f"filename {name}"}
        return require_ok(self._line.post("/v1/uploads", headers=headers)).headers["location"]

    def _is_there(self, url: str) -> bool:
        answer = self._line.head(url, headers=_TUS)
        return answer.status_code not in _GONE

    def _push(self, url: str) -> None:
        """Send what is missing. After whatever goes wrong the server is asked where it stands."""
        pauses, offset, best = Pauses(), None, -1
        while offset != self._stat.st_size:
            try:
                answer = self._ask_where(url) if offset is None else self._send_piece(url, offset)
            except httpx.TransportError:
                if not pauses.wait(PATIENCE_S):
                    raise
                # A line that breaks within every piece lets smaller ones through.
                offset, self._piece_bytes = None, max(self._piece_bytes // 2, _LEAST_PIECE_BYTES)
                continue
            if answer.is_success:
                offset = int(answer.headers["upload-offset"])
                self._on_bytes(offset, self._stat.st_size)
                if offset > best:
                    best = offset
                    pauses.restart()
                continue
            is_passing = answer.status_code in _ASK_WHERE or asks_to_wait(answer)
            if not is_passing or not pauses.wait(PATIENCE_S, wished_pause_s(answer)):
                raise self._give_up(answer)
            offset = None

    def _ask_where(self, url: str) -> httpx.Response:
        return self._line.send("HEAD", url, headers=_TUS)

    def _send_piece(self, url: str, offset: int) -> httpx.Response:
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise FileChangedError(self._path)
        self._file.seek(offset)
        piece = self._file.read(min(self._piece_bytes, self._stat.st_size - offset))
        digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
        headers = {
            **_TUS,
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(len(piece)),
            "Upload-Offset": str(offset),
            "Upload-Checksum": f"sha256 {digest}",
        }
        answer = self._line.send(
            "PATCH", url, content=self._reporting(piece, offset), headers=headers, timeout=_TIMEOUT
        )
        if answer.is_success:
            self._piece_bytes = min(self._piece_bytes * 2, PIECE_BYTES)
        return answer

    def _reporting(self, piece: bytes, offset: int) -> Iterator[bytes]:
        for start in range(0, len(piece), _SENT_AT_ONCE):
            chunk = piece[start : start + _SENT_AT_ONCE]
            yield chunk
            self._on_bytes(offset + start + len(chunk), self._stat.st_size)

    def _give_up(self, answer: httpx.Response) -> ApiError:
        if answer.status_code in _GONE:
            self._memory.forget()
        return ApiError(answer)
