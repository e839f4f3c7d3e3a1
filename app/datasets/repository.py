"""Queries on datasets. Checking's guarded moves are `app.db.ingest`."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.contracts.states import IngestState
from app.datasets.tables import DatasetRow
from app.db.page import fetch_page


def add(session: Session, row: DatasetRow) -> None:
    """Insert."""
    session.add(row)
    session.flush()


def get(session: Session, dataset_id: str) -> DatasetRow | None:
    """By id."""
    return session.get(DatasetRow, dataset_id)


def delete(session: Session, row: DatasetRow) -> None:
    """Remove the row; its blob may serve others."""
    session.delete(row)
    session.flush()


def fetch(
    session: Session, *, state: IngestState | None, after: str | None, limit: int
) -> tuple[list[DatasetRow], bool]:
    """A page, newest first, and whether there are more."""
    query = select(DatasetRow)
    if state is not None:
        query = query.where(DatasetRow.state == state)
    return fetch_page(session, query, DatasetRow.id, after=after, limit=limit)
