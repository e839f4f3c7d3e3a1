"""One resumable upload as a file of the folder `uploads`: locked while a request works on it, written at positions.

Bytes behind the offset in the upload's row do not count: a request that died left them, and the next writes over them.
The lock ends with its process. API processes share the folder; between machines its file system must have locks.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

from anyio import CancelScope
from anyio.to_thread import run_sync

from app.storage.blob import Chunk
from app.storage.spool import disk_faults
from app.uploads.tus import refusals

WAIT_S = 15.0
"""How long a request waits for another to let the file go. Longer than a silent client is heard: see `STALL_S`."""
_LOOK_S = 0.05


class Part:
    """An upload's file, open and locked. Every method blocks: call it from a thread."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file

    @disk_faults()
    def size(self) -> int:
        """Bytes there are, whether they count or not."""
        return os.fstat(self._file.fileno()).st_size

    @disk_faults()
    def write(self, position: int, chunk: Chunk) -> None:
        """Write all of `chunk` at `position`. Raises STORAGE_FULL."""
        rest = memoryview(chunk)
        while rest:
            written = os.pwrite(self._file.fileno(), rest, position)
            position, rest = position + written, rest[written:]

    @disk_faults()
    def sync(self) -> None:
        """On return what was written survives a power cut."""
        os.fsync(self._file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self) -> None:
        """Who waits for the lock gets a file that has no name any more, and finds in the row why."""
        self.path.unlink(missing_ok=True)


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[Part]:
    """The file at `path`, made where there is none. Raises UPLOAD_BUSY while another request goes on writing."""
    file = await run_sync(_open, path)
    try:
        await _wait_for_lock(file)
        yield Part(path, file)
    finally:
        with CancelScope(shield=True):
            await run_sync(file.close)


@contextmanager
def locked_now(path: Path) -> Iterator[Part | None]:
    """The same from a thread, and without waiting: None while a request has it."""
    with _open(path) as file:
        yield Part(path, file) if _lock(file) else None


@disk_faults()
def _open(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)


async def _wait_for_lock(file: BinaryIO) -> None:
    for _ in range(1 + int(WAIT_S / _LOOK_S)):
        if _lock(file):
            return
        await asyncio.sleep(_LOOK_S)
    raise refusals.busy()


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
