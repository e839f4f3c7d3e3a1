"""What webhooks are told of jobs: the state with what came of it, not the whole job."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.tables import ArtifactRow
from app.contracts.states import JobState
from app.contracts.webhooks import WebhookEvent
from app.jobs.tables import JobRow
from app.webhooks.repository import publish

_EVENTS: Mapping[JobState, WebhookEvent] = {
    JobState.QUEUED: WebhookEvent.JOB_QUEUED,
    JobState.RUNNING: WebhookEvent.JOB_RUNNING,
    JobState.SUCCEEDED: WebhookEvent.JOB_SUCCEEDED,
    JobState.FAILED: WebhookEvent.JOB_FAILED,
    JobState.CANCELLED: WebhookEvent.JOB_CANCELLED,
}


def announce_job(session: Session, project: str, job_id: str, state: JobState) -> None:
    """Have webhooks told that a job has come to a state. Call it in the transaction, once the job's row is written.

    A job that is queued again after its worker was lost is told of again.
    """
    if event := _EVENTS.get(state):
        publish(session, project, event, lambda: _describe(session, job_id))


def _describe(session: Session, job_id: str) -> Mapping[str, Any]:
    # Columns, not the object: an UPDATE may have gone past the one the session has.
    columns = (JobRow.state, JobRow.name, JobRow.model_id, JobRow.attempt, JobRow.verdict, JobRow.failure)
    job = session.execute(select(*columns).where(JobRow.id == job_id)).one()
    of_job = select(ArtifactRow.id).where(ArtifactRow.job_id == job_id).order_by(ArtifactRow.id)
    own = f"/v1/jobs/{job_id}"
    return {
        "id": job_id,
        "state": job.state,
        "name": job.name,
        "model": job.model_id,
        "attempt": job.attempt,
        "verdict": job.verdict,
        "failure": job.failure,
        "artifacts": session.scalars(of_job).all(),
        "links": {"self": own, "comparison": f"{own}/comparison"},
    }
