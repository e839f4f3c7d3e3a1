"""Blobs as files of a local folder: `ab/abcd…`, written under a temporary name, fsynced, then renamed."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.storage.blob import CHUNK_BYTES, Blob, Incoming, Stored, blob_missing, is_digest
from app.storage.copy import fetch_checked, put_file
from app.storage.digest import CheckedBlobs, checked
from app.storage.spool import Spool, disk_faults, remove_abandoned, spooling


class FolderStore:
    """A `BlobStore` in one folder, which processes may share."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._checked = CheckedBlobs()
        remove_abandoned(self._incoming)

    def receive(self) -> AbstractContextManager[Incoming]:
        """See `BlobStore`."""
        return spooling(self._incoming, self._keep)

    def put_file(self, path: Path) -> Blob:
        """See `BlobStore`."""
        return put_file(self, path)

    def fetch(self, sha256: str, to: Path) -> None:
        """See `BlobStore`."""
        fetch_checked(self, sha256, to)

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `BlobStore`."""
        with disk_faults(), self._open(sha256) as file:
            stat = os.fstat(file.fileno())
            stop = stat.st_size if stop is None else min(stop, stat.st_size)
            if (start, stop) == (0, stat.st_size):
                yield from checked(_chunks(file, stop), sha256)
                self._checked.add(sha256, _mark(stat))
                return
            if not self._checked.has(sha256, _mark(stat)):
                for _ in checked(_chunks(file, stat.st_size), sha256):
                    pass
                self._checked.add(sha256, _mark(stat))
            file.seek(start)
            yield from _chunks(file, stop - start)

    def size(self, sha256: str) -> int:
        """See `BlobStore`."""
        with self._open(sha256) as file:
            return os.fstat(file.fileno()).st_size

    def delete(self, sha256: str) -> None:
        """See `BlobStore`."""
        self._path(sha256).unlink(missing_ok=True)

    def listing(self) -> Iterator[Stored]:
        """See `BlobStore`."""
        with disk_faults():
            for path in self._root.glob("??/*"):
                try:
                    stat = path.stat()
                except FileNotFoundError:  # removed since
                    continue
                if is_digest(path.name):
                    yield Stored(path.name, stat.st_size, stat.st_mtime)

    def clock(self) -> float:
        """See `BlobStore`. The folder may be another machine's."""
        with disk_faults(), spooling(self._incoming, self._keep) as spool:
            return os.fstat(spool.file.fileno()).st_mtime

    def delete_listed(self, blob: Stored) -> bool:
        """See `BlobStore`. No writer puts the same content between the look at its age and the end of it."""
        path = self._path(blob.sha256)
        with disk_faults(), suppress(FileNotFoundError), _locked(path.parent, fcntl.LOCK_EX):
            if path.stat().st_mtime <= blob.stored_at:
                path.unlink()
                return True
        return False

    def remove_abandoned(self) -> None:
        """See `BlobStore`."""
        remove_abandoned(self._incoming)

    def check(self) -> None:
        """See `BlobStore`."""
        with self.receive() as incoming:
            incoming.write(b"\0")

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def _open(self, sha256: str) -> BinaryIO:
        try:
            return self._path(sha256).open("rb", buffering=0)
        except FileNotFoundError:
            raise blob_missing(sha256) from None

    def _keep(self, spool: Spool, blob: Blob) -> None:
        """Rename over what may be there: it is the same content, or a damaged copy that this one heals."""
        target = self._path(blob.sha256)
        target.parent.mkdir(exist_ok=True)
        os.fchmod(spool.file.fileno(), 0o440)
        os.utime(spool.file.fileno())  # the last byte may have come long before
        os.fsync(spool.file.fileno())
        with _locked(target.parent, fcntl.LOCK_SH):
            spool.path.rename(target)
        for folder in (target.parent, self._root):
            _fsync_folder(folder)
        self._checked.add(blob.sha256, _mark(target.stat()))


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """At most `size` bytes from where the file stands."""
    while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
        size -= len(chunk)
        yield chunk


def _mark(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold the lock between those who put content in place (LOCK_SH) and who removes what is old (LOCK_EX)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
