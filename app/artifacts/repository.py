"""Queries on artifacts."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.tables import ArtifactRow
from app.db.ids import new_id
from app.db.page import fetch_page


def add(session: Session, row: ArtifactRow) -> None:
    """Insert."""
    session.add(row)
    session.flush()


def copy(session: Session, from_job: str, to_job: str) -> None:
    """Give a job artifacts of its own with the content of another's."""
    for row in of_job(session, from_job):
        same = {name: getattr(row, name) for name in ("project", "format", "filename", "sha256", "size_bytes")}
        add(session, ArtifactRow(id=new_id("art"), job_id=to_job, **same))


def get(session: Session, artifact_id: str) -> ArtifactRow | None:
    """By id."""
    return session.get(ArtifactRow, artifact_id)


def delete(session: Session, row: ArtifactRow) -> None:
    """Remove the row; its blob may serve others."""
    session.delete(row)
    session.flush()


def of_job(session: Session, job_id: str) -> Sequence[ArtifactRow]:
    """A job's artifacts, oldest first."""
    return session.scalars(select(ArtifactRow).where(ArtifactRow.job_id == job_id).order_by(ArtifactRow.id)).all()


def fetch(session: Session, *, job_id: str | None, after: str | None, limit: int) -> tuple[list[ArtifactRow], bool]:
    """A page, newest first, and whether there are more."""
    query = select(ArtifactRow)
    if job_id is not None:
        query = query.where(ArtifactRow.job_id == job_id)
    return fetch_page(session, query, ArtifactRow.id, after=after, limit=limit)
