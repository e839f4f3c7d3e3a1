"""What a blob and a store of blobs are, and the failures every store shares. No bytes are moved here.

A blob is named by the sha256 of its content. It never changes; the same content put twice is one blob.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.contracts.failure import FaultKind, SlimlineError

Chunk = bytes | bytearray | memoryview

CHUNK_BYTES = 1024**2

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """Stored content; `sha256` is 64 lower-case hexadecimal digits."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Stored:
    """A blob as a listing finds it. `stored_at`: when its content was last put, seconds by the store's own clock."""

    sha256: str
    size_bytes: int
    stored_at: float


def is_digest(name: str) -> bool:
    """Whether a blob can have this name."""
    return _DIGEST.fullmatch(name) is not None


class Incoming(Protocol):
    """Content on its way into a store, in order."""

    def write(self, chunk: Chunk) -> None:
        """Take the next bytes. Raises STORAGE_FULL."""

    def commit(self) -> Blob:
        """Keep what was written. On return it survives a power cut. Call it once, last."""


class BlobStore(Protocol):
    """Blobs by digest. Every method blocks: call it from a thread. All raise STORAGE_UNREACHABLE (transient)."""

    def receive(self) -> AbstractContextManager[Incoming]:
        """Take new content in. Leaving the block without `commit` leaves nothing behind."""

    def put_file(self, path: Path) -> Blob:
        """Keep a copy of a file."""

    def fetch(self, sha256: str, to: Path) -> None:
        """Write a private copy to `to`, which is there only when the digest held. Raises BLOB_MISSING, BLOB_CORRUPT."""

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` (None: the end), in chunks of at most some MiB.

        Raises BLOB_MISSING, and BLOB_CORRUPT before the last chunk has left when the content is not what its name says.
        """

    def size(self, sha256: str) -> int:
        """Bytes of the blob. Raises BLOB_MISSING."""

    def delete(self, sha256: str) -> None:
        """Remove the blob if it is there."""

    def listing(self) -> Iterator[Stored]:
        """Every blob, in no order. Others come and go meanwhile."""

    def clock(self) -> float:
        """The time now by the clock of `Stored.stored_at`, seconds."""

    def delete_listed(self, blob: Stored) -> bool:
        """Remove the blob unless its content was put again since it was listed. False: it stays, or is gone already."""

    def remove_abandoned(self) -> None:
        """Remove the temporary files of writers that died."""

    def check(self) -> None:
        """Raise STORAGE_UNREACHABLE unless the store can be written and read now."""


def blob_missing(sha256: str) -> SlimlineError:
    """The store holds nothing under this digest."""
    return SlimlineError(
        "BLOB_MISSING",
        f"the stored file {sha256} is gone from storage",
        kind=FaultKind.OURS,
        hint="the operator must restore the blob storage from a backup, or the file be uploaded again",
    )


def blob_corrupt(sha256: str) -> SlimlineError:
    """What lies under this digest has another."""
    return SlimlineError(
        "BLOB_CORRUPT",
        f"the stored file {sha256} no longer has the content it was stored with",
        kind=FaultKind.OURS,
        hint="upload the file again, which replaces the damaged copy; the operator should check the disk",
    )


def storage_unreachable(reason: object) -> SlimlineError:
    """The store cannot be used now; the same request may go through later."""
    return SlimlineError(
        "STORAGE_UNREACHABLE",
        f"the blob storage cannot be used: {reason}",
        kind=FaultKind.TRANSIENT,
        hint="try again in a while",
    )
