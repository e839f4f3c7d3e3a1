"""Queries of retention: what refers to blobs, and what is over long enough to go. How long that is, is not here."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, delete, exists, select, union
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.artifacts.tables import ArtifactRow
from app.datasets.tables import DatasetRow
from app.db.clock import SWEPT_MOST, asked_at
from app.jobs.tables import JobGraphRow, JobModelRow, JobRow
from app.models.tables import ModelRow
from app.uploads.tables import UploadRow

Column = InstrumentedAttribute[str] | InstrumentedAttribute[str | None]

BLOB_COLUMNS: Sequence[Column] = (
    ModelRow.sha256,
    ModelRow.graph_sha256,
    DatasetRow.sha256,
    UploadRow.sha256,
    ArtifactRow.sha256,
    JobRow.checkpoint_sha256,
    JobRow.partial_sha256,
    JobGraphRow.sha256,
)
"""Every column that keeps a blob. A row that was deleted, and is there for its jobs alone, keeps none."""

_READERS: dict[type[ModelRow] | type[DatasetRow], Sequence[Column]] = {
    ModelRow: (JobRow.model_id, JobModelRow.model_id),
    DatasetRow: (JobRow.calibrate_id, JobRow.train_id, JobRow.evaluate_id),
}


def find_referenced(session: Session, sha256s: Collection[str]) -> set[str]:
    """Those of these blobs that a row refers to. One statement: none is missed that moves from one row to another."""
    return set(session.scalars(union(*(_referring(column, sha256s) for column in BLOB_COLUMNS))))


def delete_finished_jobs(session: Session, older_than: timedelta, most: int) -> int:
    """Remove jobs that ended so long ago, the oldest first, with all that belongs to them; how many."""
    ended = select(JobRow.id).where(JobRow.finished_at < asked_at(session) - older_than)
    ids = session.scalars(ended.order_by(JobRow.finished_at).limit(most)).all()
    session.execute(delete(JobRow).where(JobRow.id.in_(ids)))
    return len(ids)


def forget_deleted(session: Session, older_than: timedelta) -> None:
    """Remove the rows of models and datasets that were deleted so long ago and that no job refers to."""
    for table, readers in _READERS.items():
        unread = [~exists().where(column == table.id) for column in readers]
        found = select(table.id).where(table.deleted_at < asked_at(session) - older_than, *unread).limit(SWEPT_MOST)
        session.execute(delete(table).where(table.id.in_(session.scalars(found).all())))


def _referring(column: Column, sha256s: Collection[str]) -> Select[Any]:
    query = select(column).where(column.in_(sha256s))
    deleted_at = getattr(column.class_, "deleted_at", None)
    return query if deleted_at is None else query.where(deleted_at.is_(None))
