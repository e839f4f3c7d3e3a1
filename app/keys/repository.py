"""Queries on keys and projects. The gate's are bare: it asks before it is known whose rows may be seen."""

from datetime import datetime

from sqlalchemy import Connection, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.page import PageQuery, fetch_page
from app.keys.tables import KeyRow, ProjectRow
from app.security.proof import StoredKey

_FOUND = select(*(getattr(KeyRow, column) for column in StoredKey._fields))


def has_any_key(connection: Connection) -> bool:
    """Whether a key was ever made: revoked ones are kept."""
    return connection.scalar(select(literal(1)).select_from(KeyRow).limit(1)) is not None


def look_up(connection: Connection, key_id: str) -> StoredKey | None:
    """By id, of any project."""
    row = connection.execute(_FOUND.where(KeyRow.id == key_id)).one_or_none()
    return StoredKey(*row) if row else None


def is_live(session: Session, key_id: str, at: datetime) -> bool:
    """Whether the key is neither revoked nor expired."""
    lasts = or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > at)
    return session.scalar(select(literal(1)).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None), lasts)) is not None


def note_use(session: Session, key_id: str, now: datetime) -> None:
    """The key was used."""
    session.connection().execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=now))


def add(session: Session, row: KeyRow) -> None:
    """Insert, with the key's project if this is its first."""
    insert = insert_sqlite if session.get_bind().dialect.name == "sqlite" else insert_postgresql
    project = insert(ProjectRow).values(name=row.project, created_at=utc_now())
    session.connection().execute(project.on_conflict_do_nothing())
    session.add(row)
    session.flush()


def get(session: Session, key_id: str) -> KeyRow | None:
    """By id."""
    return session.get(KeyRow, key_id)


def fetch(session: Session, wanted: PageQuery) -> tuple[list[KeyRow], bool]:
    """A page, newest first, and whether there are more."""
    return fetch_page(session, select(KeyRow), KeyRow.id, after=wanted.after, limit=wanted.limit)


def fetch_all(session: Session, project: str | None) -> list[KeyRow]:
    """Every key, newest first; of one project, if one is named."""
    query = select(KeyRow).order_by(KeyRow.id.desc())
    return list(session.scalars(query if project is None else query.where(KeyRow.project == project)))
