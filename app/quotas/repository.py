"""Queries on what a project has."""

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from app.artifacts.tables import ArtifactRow
from app.contracts.states import JobState
from app.datasets.tables import DatasetRow
from app.db.base import utc_now
from app.db.tenancy import project_of
from app.jobs.tables import JobRow
from app.keys.tables import ProjectRow
from app.models.tables import ModelRow
from app.uploads.tables import UploadRow


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
