"""Queries on models. Checking's guarded moves are `app.db.ingest`."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.contracts.states import IngestState
from app.db.base import utc_now
from app.db.page import fetch_page
from app.models.tables import ModelRow


def add(session: Session, row: ModelRow) -> None:
    """Insert."""
    session.add(row)
    session.flush()


def get(session: Session, model_id: str) -> ModelRow | None:
    """By id, unless it was deleted."""
    row = session.get(ModelRow, model_id)
    return row if row is not None and row.deleted_at is None else None


def delete(session: Session, row: ModelRow) -> None:
    """Mark the model deleted: its jobs refer to the row, so that stays, and nothing finds it any more."""
    row.deleted_at, row.facts = utc_now(), None
    session.flush()


def fetch(session: Session, *, state: IngestState | None, after: str | None, limit: int) -> tuple[list[ModelRow], bool]:
    """A page, newest first, and whether there are more."""
    query = select(ModelRow).where(ModelRow.deleted_at.is_(None))
    if state is not None:
        query = query.where(ModelRow.state == state)
    return fetch_page(session, query, ModelRow.id, after=after, limit=limit)
