"""What may be done with resumable uploads, apart from writing their bytes. No SQL and no HTTP here."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

from sqlalchemy.orm import Session

from app.context import Context
from app.db.base import utc_now
from app.db.ids import new_id
from app.errors import Problem, unprocessable
from app.quotas.service import require_room
from app.settings import Settings
from app.uploads import repository
from app.uploads.tables import UploadRow
from app.uploads.tus import refusals
from app.uploads.tus.headers import Metadata
from app.uploads.tus.part import locked_now

CLEARED_MOST = 100
"""Expired uploads that one new upload removes."""
_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


def folder(settings: Settings) -> Path:
    """Where the bytes of uploads lie that are not whole yet. API processes must share it."""
    return settings.data.absolute() / "uploads"


def part_path(settings: Settings, row: UploadRow) -> Path:
    """The file of an upload. Its name is an id of ours, never what a client sent."""
    return folder(settings) / row.id


def add(session: Session, settings: Settings, size_bytes: int, metadata: Metadata) -> UploadRow:
    """An upload without a byte yet. Raises QUOTA_BYTES (413) for a file that the project has no room for."""
    require_room(session, settings, size_bytes)
    row = UploadRow(
        id=new_id("upl"),
        filename=metadata.filename,
        tus_metadata=metadata.header,
        size_bytes=size_bytes,
        offset_bytes=0,
        expires_at=utc_now() + timedelta(seconds=settings.upload_expiry_s),
    )
    repository.add(session, row)
    return row


def find(session: Session, upload_id: str) -> UploadRow:
    """The upload. Raises the 404 problem, and UPLOAD_EXPIRED (410)."""
    row = repository.get(session, upload_id)
    if row is None:
        raise refusals.unknown(upload_id)
    if row.expires_at < utc_now():
        raise refusals.expired()
    return row


def find_whole(session: Session, upload_id: str) -> UploadRow:
    """The upload a model or dataset is to be made of. Raises 422 problems that point at `/upload`."""
    with pointing_at_upload():
        row = find(session, upload_id)
    if row.offset_bytes < row.size_bytes:
        detail = f"Of the upload {row.offset_bytes} of {row.size_bytes} bytes have come. Send the rest, then ask again."
        raise unprocessable("/upload", "UPLOAD_UNFINISHED", detail)
    return row


@contextmanager
def pointing_at_upload() -> Iterator[None]:
    """An upload that is gone is no 404 or 410 where a body names it: turn them into 422 problems of that field."""
    try:
        yield
    except Problem as problem:
        if problem.status in _GONE:
            raise unprocessable("/upload", problem.code, problem.detail) from problem
        raise


def clear(context: Context) -> None:
    """Remove uploads of every project that have expired, and files whose upload is gone. Blocks.

    What a request is writing to at this moment stays.
    """
    database, place = context.database, folder(context.settings)
    with database.read() as session:
        expired = repository.find_expired(session, utc_now(), CLEARED_MOST)
        lying = {path.name for path in place.glob("upl_*")}
        orphans = lying - repository.find_known(session, lying)
    for upload_id in (*expired, *orphans):
        with locked_now(place / upload_id) as part:
            if part is None:
                continue
            with database.write() as session:
                repository.remove_expired(session, upload_id, utc_now())
                is_gone = repository.get(session, upload_id) is None
            if is_gone:
                part.remove()
