"""Checking content against the digest it is stored under: while it streams by, or once before parts of it are read."""

import hashlib
import threading
from collections.abc import Hashable, Iterable, Iterator

from app.storage.blob import blob_corrupt

_REMEMBERED = 10_000


def checked(chunks: Iterable[bytes], sha256: str) -> Iterator[bytes]:
    """The same chunks. The last is held back until the digest is known to hold, else BLOB_CORRUPT."""
    digest, held = hashlib.sha256(), b""
    for chunk in chunks:
        if held:
            yield held
        digest.update(chunk)
        held = chunk
    if digest.hexdigest() != sha256:
        raise blob_corrupt(sha256)
    if held:
        yield held


class CheckedBlobs:
    """Which blobs this process has checked, each with a mark (inode and time, or an ETag) that a new file changes."""

    def __init__(self) -> None:
        self._marks: dict[str, Hashable] = {}
        self._lock = threading.Lock()

    def add(self, sha256: str, mark: Hashable) -> None:
        """Remember; the oldest entry makes room."""
        with self._lock:
            if len(self._marks) >= _REMEMBERED:
                self._marks.pop(next(iter(self._marks)))
            self._marks[sha256] = mark

    def has(self, sha256: str, mark: Hashable) -> bool:
        """Whether exactly this file was checked."""
        return self._marks.get(sha256) == mark
