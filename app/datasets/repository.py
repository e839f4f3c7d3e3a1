"""Queries on datasets. Checking's guarded moves are `app.db.ingest`."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.contracts.states import IngestState
from app.datasets.tables import DatasetRow
from app.db.base import utc_now
from app.db.page import fetch_page


def add(session: Session, row: DatasetRow) -> None:
    """Insert."""
    session.add(row)
    session.flush()


def get(session: Session, dataset_id: str) -> DatasetRow | None:
    """By id, unless it was deleted."""
    row = session.get(DatasetRow, dataset_id)
    return row if row is not None and row.deleted_at is None else None


def delete(session: Session, row: DatasetRow) -> None:
    """Mark the dataset deleted: its jobs refer to the row, so that stays, and nothing finds it any more."""
    row.deleted_at, row.facts = utc_now(), None
    session.flush()


def fetch(
    session: Session, *, state: IngestState | None, after: str | None, limit: int
) -> tuple[list[DatasetRow], bool]:
    """A page, newest first, and whether there are more."""
    query = select(DatasetRow).where(DatasetRow.deleted_at.is_(None))
    if state is not None:
        query = query.where(DatasetRow.state == state)
    return fetch_page(session, query, DatasetRow.id, after=after, limit=limit)
