"""Queries on resumable uploads. The offset moves by guarded UPDATE."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from app.uploads.tables import UploadRow


def add(session: Session, row: UploadRow) -> None:
    """Insert."""
    session.add(row)
    session.flush()


def get(session: Session, upload_id: str) -> UploadRow | None:
    """By id."""
    return session.get(UploadRow, upload_id)


def advance(session: Session, upload_id: str, offset: int, to: int, expires_at: datetime) -> bool:
    """Count the bytes from `offset` up to `to`. False: the upload does not stand at `offset`, or is gone."""
    query = update(UploadRow).where(UploadRow.id == upload_id, UploadRow.offset_bytes.in_((offset, to)))
    result = session.execute(query.values(offset_bytes=to, expires_at=expires_at))
    assert isinstance(result, CursorResult)  # an UPDATE gives no other
    return result.rowcount == 1  # at `to` it stands when this is said twice, since the first answer was lost


def set_blob(session: Session, upload_id: str, sha256: str) -> None:
    """The upload is whole, and kept as this blob."""
    session.execute(update(UploadRow).where(UploadRow.id == upload_id).values(sha256=sha256))


def remove(session: Session, upload_id: str) -> None:
    """Delete the row."""
    session.execute(delete(UploadRow).where(UploadRow.id == upload_id))


def remove_expired(session: Session, upload_id: str, now: datetime) -> None:
    """Delete the row, unless it has come to life again."""
    session.execute(delete(UploadRow).where(UploadRow.id == upload_id, UploadRow.expires_at < now))


def find_expired(session: Session, now: datetime, most: int) -> Sequence[str]:
    """Ids of uploads that no one has added to for too long."""
    return session.scalars(select(UploadRow.id).where(UploadRow.expires_at < now).limit(most)).all()


def find_known(session: Session, ids: Collection[str]) -> set[str]:
    """Those of `ids` that there is a row for."""
    return set(session.scalars(select(UploadRow.id).where(UploadRow.id.in_(ids))))
