"""Queries on kept answers."""

from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.tenancy import project_of
from app.idempotency.tables import KeptAnswerRow


def take(session: Session, key: str, fingerprint: str) -> KeptAnswerRow | None:
    """Take a key for this transaction; or the answer that is kept under it.

    Of two transactions at once the second waits here for the first, and then finds its answer.
    """
    insert = insert_sqlite if session.get_bind().dialect.name == "sqlite" else insert_postgresql
    columns = {"project": project_of(session), "key": key, "fingerprint": fingerprint}
    unsaid = {"status": 0, "headers": {}, "body": "", "created_at": utc_now()}
    take_it = insert(KeptAnswerRow).values(**columns, **unsaid).on_conflict_do_nothing().returning(KeptAnswerRow.key)
    is_taken = session.connection().scalar(take_it) is not None  # PostgreSQL's driver does not tell by rowcount
    return None if is_taken else session.get(KeptAnswerRow, (project_of(session), key))


def keep(session: Session, key: str, status: int, headers: dict[str, str], body: str) -> None:
    """Keep the answer of this transaction under a key that it has taken."""
    row = session.get_one(KeptAnswerRow, (project_of(session), key))
    row.status, row.headers, row.body = status, headers, body


def forget(session: Session, before: datetime) -> None:
    """Delete the answers that were kept before `before`."""
    session.execute(delete(KeptAnswerRow).where(KeptAnswerRow.created_at < before))
