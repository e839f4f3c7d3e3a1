"""Queries on keys and projects. The gate's are bare: it asks before it is known whose rows may be seen."""

from datetime import datetime

from sqlalchemy import Connection, func, literal, select, union_all, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from app.artifacts.tables import ArtifactRow
from app.contracts.states import JobState
from app.datasets.tables import DatasetRow
from app.db.base import utc_now
from app.db.page import PageQuery, fetch_page
from app.db.tenancy import project_of
from app.jobs.tables import JobRow
from app.keys.tables import KeyRow, ProjectRow
from app.models.tables import ModelRow
from app.security.proof import StoredKey
from app.uploads.tables import UploadRow

_FOUND = select(*(getattr(KeyRow, column) for column in StoredKey._fields))


def has_any_key(connection: Connection) -> bool:
    """Whether a key was ever made: revoked ones are kept."""
    return connection.scalar(select(literal(1)).select_from(KeyRow).limit(1)) is not None


def look_up(connection: Connection, key_id: str) -> StoredKey | None:
    """By id, of any project."""
    row = connection.execute(_FOUND.where(KeyRow.id == key_id)).one_or_none()
    return StoredKey(*row) if row else None


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


def lock_project(session: Session) -> None:
    """Let no other transaction that counts against a quota of this project go on before this one has ended."""
    session.execute(select(ProjectRow.name).where(ProjectRow.name == project_of(session)).with_for_update())


def count_unfinished_jobs(session: Session, most: int) -> int:
    """Jobs of the project that are not over yet, counted up to `most`."""
    unfinished = [state for state in JobState if not state.is_final]
    found = select(JobRow.id).where(JobRow.project == project_of(session), JobRow.state.in_(unfinished)).limit(most)
    return session.connection().scalar(select(func.count()).select_from(found.subquery())) or 0


def sum_stored_bytes(session: Session) -> int:
    """Bytes of the project's models, datasets, artifacts and announced uploads."""
    project = project_of(session)
    kept = [
        select(func.sum(table.size_bytes).label("bytes")).where(table.project == project, table.deleted_at.is_(None))
        for table in (ModelRow, DatasetRow)
    ]
    made = select(func.sum(ArtifactRow.size_bytes).label("bytes")).where(ArtifactRow.project == project)
    coming = select(func.sum(UploadRow.size_bytes).label("bytes")).where(
        UploadRow.project == project, UploadRow.sha256.is_(None), UploadRow.expires_at > utc_now()
    )
    return int(session.connection().scalar(select(func.sum(union_all(*kept, made, coming).subquery().c.bytes))) or 0)
