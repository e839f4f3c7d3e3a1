"""Content-addressed blobs on a local folder or on S3. What a blob is for is not known here."""

from app.storage.blob import Blob, BlobStore, Incoming, Stored
from app.storage.store import open_store

__all__ = ["Blob", "BlobStore", "Incoming", "Stored", "open_store"]
