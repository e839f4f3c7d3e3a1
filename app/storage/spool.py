"""Content being received: hashed while it is written to a temporary file. Where the file goes then, the store knows.

The writer holds a lock on its temporary file. The lock ends with the process, so a file without one is a dead writer's.
"""

import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.contracts.failure import FaultKind, SlimlineError
from app.storage.blob import Blob, Chunk, storage_unreachable

# Time between a writer's making its file and locking it is far below this, seconds.
_UNLOCKED_AGE_S = 60


@contextmanager
def disk_faults() -> Iterator[None]:
    """Turn the faults of the disk into failures that say what to do. What is not there is the caller's to explain."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SlimlineError(
                "STORAGE_FULL",
                "there is no room left on the disk",
                kind=FaultKind.TRANSIENT,
                hint="the operator must make room; then try again",
            ) from error
        raise storage_unreachable(error) from error


class Spool:
    """A temporary file that knows the digest of what was written. `keep` moves it to where it belongs, durably."""

    @disk_faults()
    def __init__(self, folder: Path, keep: Callable[["Spool", Blob], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        self.file = os.fdopen(handle, "wb", buffering=0)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._keep = keep
        self._digest = hashlib.sha256()
        self._size = 0

    @disk_faults()
    def write(self, chunk: Chunk) -> None:
        """Hash and write. Raises STORAGE_FULL."""
        self._digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self.file.write(rest) :]
        self._size += len(chunk)

    @disk_faults()
    def commit(self) -> Blob:
        """Hand the file to the store."""
        blob = Blob(self._digest.hexdigest(), self._size)
        self._keep(self, blob)
        return blob

    def discard(self) -> None:
        """Close, and remove the file unless the store has moved it."""
        self.path.unlink(missing_ok=True)
        self.file.close()


@contextmanager
def spooling(folder: Path, keep: Callable[[Spool, Blob], None]) -> Iterator[Spool]:
    """A spool that is gone after the block, whatever happens in it."""
    spool = Spool(folder, keep)
    try:
        yield spool
    finally:
        spool.discard()


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of writers that died."""
    for path in folder.glob("*") if folder.is_dir() else ():
        with suppress(FileNotFoundError), path.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime < _UNLOCKED_AGE_S:
                continue
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
