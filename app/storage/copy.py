"""Copying whole files into and out of any store. Nothing here knows where the blobs lie."""

from pathlib import Path

from app.storage.blob import CHUNK_BYTES, Blob, BlobStore
from app.storage.spool import disk_faults


def put_file(store: BlobStore, path: Path) -> Blob:
    """Read, hash and store a file."""
    with store.receive() as incoming, path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            incoming.write(chunk)
        return incoming.commit()


@disk_faults()
def fetch_checked(store: BlobStore, sha256: str, to: Path) -> None:
    """Write a blob to a file. A copy, not a link: whoever gets it may not reach the stored bytes."""
    try:
        with to.open("wb", buffering=0) as file:
            for chunk in store.read(sha256):
                file.write(chunk)
    except BaseException:
        to.unlink(missing_ok=True)
        raise
