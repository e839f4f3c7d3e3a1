"""Finding artifacts, and how an artifact is shown. No SQL and no HTTP here."""

from sqlalchemy.orm import Session

from app.artifacts import repository
from app.artifacts.content import Content
from app.artifacts.schemas import ArtifactView
from app.artifacts.tables import ArtifactRow
from app.audit.repository import record
from app.audit.schemas import Action
from app.errors import not_found
from app.jobs import repository as jobs


def find(session: Session, artifact_id: str) -> ArtifactRow:
    """The artifact. Raises the 404 problem."""
    row = repository.get(session, artifact_id)
    if row is None:
        raise not_found("artifact", artifact_id)
    return row


def delete(session: Session, artifact_id: str) -> None:
    """Delete the artifact; its job lists it no more."""
    row = find(session, artifact_id)
    jobs.lose_artifact(session, row.job_id)  # locks the job: of two deletions at once the second finds no artifact
    session.expire(row)
    repository.delete(session, find(session, artifact_id))
    record(session, Action.ARTIFACT_DELETED, artifact_id)


def find_content(session: Session, artifact_id: str) -> Content:
    """The artifact's bytes."""
    row = find(session, artifact_id)
    return Content(row.sha256, row.size_bytes, row.filename)


def view(row: ArtifactRow) -> ArtifactView:
    """The artifact as the API shows it."""
    own = f"/v1/artifacts/{row.id}"
    return ArtifactView(
        id=row.id,
        job=row.job_id,
        format=row.format,
        filename=row.filename,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        links={"self": own, "content": f"{own}/content", "job": f"/v1/jobs/{row.job_id}"},
    )
