"""What may become of a queued job before it runs: wait for its inputs, be sent to a worker, or fail without running."""

from sqlalchemy.orm import Session

from app.contracts.failure import Failure, FaultKind
from app.contracts.recipe import DataRole
from app.contracts.references import find_other_models
from app.contracts.states import IngestState, JobState
from app.datasets import repository as datasets
from app.datasets.tables import DatasetRow
from app.db.database import send_after_commit
from app.db.ingest import IngestRow
from app.jobs import repository as jobs
from app.jobs.queue import moves
from app.jobs.service import message_for
from app.jobs.tables import JobRow
from app.models import repository as models
from app.models.tables import ModelRow
from worker.reporter.retries import is_poison, starts_exhausted


def queue_time_exceeded(job: JobRow) -> Failure:
    """The failure of a job that was queued for longer than it may be."""
    return Failure(
        kind=FaultKind.TRANSIENT,
        code="QUEUE_TIME_EXCEEDED",
        message=f"no worker took the job within {job.queue_s:g} s",
        hint="submit it again, with a larger limits.queue_s; the operator can add workers",
    )


def find_obstacle(session: Session, job: JobRow, max_attempts: int) -> Failure | None:
    """Why a queued job can never run; None when it can, now or once its inputs are checked.

    Whether it has waited too long only the sweep says, which knows whether the clock jumped.
    """
    if is_poison(job, max_attempts):
        return starts_exhausted(job.failed_starts + job.lost)
    for name, row in _inputs_of(session, job).items():
        if row is None:
            return Failure(
                kind=FaultKind.USER,
                code="INPUT_DELETED",
                message=f"the {name} of this job was deleted before the job began",
                hint="upload it again and submit a new job",
            )
        if row.state == IngestState.REJECTED:
            return row.problem
    return None


def is_ready(session: Session, job: JobRow) -> bool:
    """Whether all inputs are there and were found usable."""
    return all(row is not None and row.state == IngestState.READY for row in _inputs_of(session, job).values())


def data_of(session: Session, job: JobRow) -> dict[DataRole, DatasetRow | None]:
    """The datasets of a job; None for one that was deleted."""
    ids = job.spec.data.model_dump(exclude_none=True)
    return {DataRole(role): datasets.get(session, id_) for role, id_ in ids.items()}


def other_models_of(session: Session, job: JobRow) -> dict[str, ModelRow | None]:
    """The teachers and students of a job by id; None for one that was deleted."""
    return {id_: models.get(session, id_) for id_ in find_other_models(job.spec.recipe)}


def _inputs_of(session: Session, job: JobRow) -> dict[str, IngestRow | None]:
    others = {f"model {id_}": row for id_, row in other_models_of(session, job).items()}
    data = {f"{role} dataset": row for role, row in data_of(session, job).items()}
    return {"model": models.get(session, job.model_id), **others, **data}


def send_or_fail(session: Session, job: JobRow, max_attempts: int) -> None:
    """Send a queued job to a worker if it can run now, fail it if it never can; else it waits on."""
    if failure := find_obstacle(session, job, max_attempts):
        moves.move(session, job.id, JobState.FAILED, attempt=job.attempt, values={"failure": failure})
    elif is_ready(session, job):
        moves.set_startable(session, job.id)
        send_after_commit(session, message_for(job.id, job.queue))


def settle_those_waiting(session: Session, input_id: str, max_attempts: int) -> None:
    """An input was checked: send or fail the jobs that were waiting for it."""
    for job in jobs.find_queued_on(session, input_id):
        send_or_fail(session, job, max_attempts)
