"""Blobs as objects of an S3 bucket, through obstore. Uploads are spooled on the local disk, to be hashed first."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from app.storage.blob import Blob, Incoming, Stored, blob_missing, is_digest, storage_unreachable
from app.storage.copy import fetch_checked, put_file
from app.storage.digest import CheckedBlobs, checked
from app.storage.spool import Spool, remove_abandoned, spooling

# One ranged request each: a slow reader never holds a request open, and a failed one is repeated by obstore.
READ_BYTES = 4 * 1024**2
PART_BYTES = 8 * 1024**2
# S3 takes 10,000 parts; parts in flight are held in memory.
_MAX_PARTS = 9_000
_PARTS_AT_ONCE = 2


class BucketStore:
    """A `BlobStore` in a bucket, under the prefix that `objects` was opened with.

    `objects` waits out short outages. `probed`, the same bucket, does not: by it readiness is told.
    """

    def __init__(self, objects: S3Store, probed: S3Store, spool: Path) -> None:
        self._objects = objects
        self._probed = probed
        self._spool = spool
        self._checked = CheckedBlobs()
        remove_abandoned(spool)

    def receive(self) -> AbstractContextManager[Incoming]:
        """See `BlobStore`."""
        return spooling(self._spool, self._keep)

    def put_file(self, path: Path) -> Blob:
        """See `BlobStore`."""
        return put_file(self, path)

    def fetch(self, sha256: str, to: Path) -> None:
        """See `BlobStore`."""
        fetch_checked(self, sha256, to)

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `BlobStore`."""
        with _s3_faults(sha256):
            meta = obstore.head(self._objects, _key(sha256))
            size, mark = meta["size"], _mark(meta)
            stop = size if stop is None else min(stop, size)
            if (start, stop) == (0, size):
                yield from checked(self._chunks(sha256, 0, size), sha256)
                self._checked.add(sha256, mark)
                return
            if not self._checked.has(sha256, mark):
                for _ in checked(self._chunks(sha256, 0, size), sha256):
                    pass
                self._checked.add(sha256, mark)
            yield from self._chunks(sha256, start, stop)

    def size(self, sha256: str) -> int:
        """See `BlobStore`."""
        with _s3_faults(sha256):
            return obstore.head(self._objects, _key(sha256))["size"]

    def delete(self, sha256: str) -> None:
        """See `BlobStore`."""
        with _s3_faults(sha256):
            obstore.delete(self._objects, _key(sha256))

    def listing(self) -> Iterator[Stored]:
        """See `BlobStore`."""
        with _s3_faults("of the listing"):
            for page in obstore.list(self._objects):
                for meta in page:
                    name = meta["path"].rpartition("/")[2]
                    if is_digest(name):
                        yield Stored(name, meta["size"], meta["last_modified"].timestamp())

    def clock(self) -> float:
        """See `BlobStore`. It is the server's, which tells it by what it stores."""
        with _s3_faults("that tells the time"):
            obstore.put(self._objects, ".clock", b"")
            return obstore.head(self._objects, ".clock")["last_modified"].timestamp()

    def delete_listed(self, blob: Stored) -> bool:
        """See `BlobStore`. S3 has no lock: content put again between the two requests is lost.

        They follow at once, and neither is repeated: a deletion must not arrive long after the look.
        """
        with _s3_faults(blob.sha256):
            try:
                meta = obstore.head(self._probed, _key(blob.sha256))
            except FileNotFoundError:
                return False
            if meta["last_modified"].timestamp() > blob.stored_at:
                return False
            obstore.delete(self._probed, _key(blob.sha256))
            return True

    def remove_abandoned(self) -> None:
        """See `BlobStore`."""
        remove_abandoned(self._spool)

    def check(self) -> None:
        """See `BlobStore`."""
        with _s3_faults("of the readiness check"):
            obstore.put(self._probed, ".ready", b"ready")
            obstore.get(self._probed, ".ready").bytes()

    def _keep(self, spool: Spool, blob: Blob) -> None:
        with _s3_faults(blob.sha256):
            obstore.put(
                self._objects,
                _key(blob.sha256),
                spool.path,
                chunk_size=max(PART_BYTES, -(-blob.size_bytes // _MAX_PARTS)),
                max_concurrency=_PARTS_AT_ONCE,
            )
            meta = obstore.head(self._objects, _key(blob.sha256))
        if meta["size"] != blob.size_bytes:
            raise storage_unreachable(f"{meta['size']} of {blob.size_bytes} bytes arrived")

    def _chunks(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        for offset in range(start, stop, READ_BYTES):
            end = min(offset + READ_BYTES, stop)
            yield bytes(obstore.get_range(self._objects, _key(sha256), start=offset, end=end))


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _mark(meta: Mapping[str, Any]) -> tuple[object, ...]:
    return meta["e_tag"], meta["last_modified"], meta["size"]


@contextmanager
def _s3_faults(sha256: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise blob_missing(sha256) from None
    except (BaseError, OSError) as error:
        # The first line says what failed; the rest is the library's trace and the whole answer of the server.
        raise storage_unreachable(str(error).partition(os.linesep)[0]) from error
