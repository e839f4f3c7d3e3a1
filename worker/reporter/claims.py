"""What a worker must know of a job that it has taken."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.contracts.job_spec import JobSpec
from app.contracts.preprocess import Preprocess
from app.contracts.recipe import DataRole
from app.datasets.tables import DatasetRow
from app.jobs import repository as jobs
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from worker.reporter.queued import data_of, other_models_of


@dataclass(frozen=True)
class Input:
    """A stored file that the job reads."""

    sha256: str
    filename: str
    preprocess: Preprocess | None = None


@dataclass(frozen=True)
class Claim:
    """What a worker must know of the job it has taken. `attempt` is the fencing token."""

    id: str
    project: str
    attempt: int
    spec: JobSpec
    model: Input
    other_models: Mapping[str, Input]
    data: Mapping[DataRole, Input]
    checkpoint: tuple[int, str] | None
    """The last step done, from 0, and the digest of the graph after it."""
    partial_checkpoint: tuple[int, str] | None
    """The step that was at work, and the digest of what it had left."""
    graphs: Mapping[int, str]
    """Digests of the graphs after steps that teach later ones."""
    events: int
    request_id: str | None
    traceparent: str | None


def describe(session: Session, job: JobRow) -> Claim:
    """The claim of a job that is ready: its inputs are there."""
    return Claim(
        id=job.id,
        project=job.project,
        attempt=job.attempt,
        spec=job.spec,
        model=_input(session.get_one(ModelRow, job.model_id)),
        other_models={id_: _input(row) for id_, row in other_models_of(session, job).items() if row},
        data={role: _input(row) for role, row in data_of(session, job).items() if row},
        checkpoint=_saved(job.checkpoint_step, job.checkpoint_sha256),
        partial_checkpoint=_saved(job.partial_step, job.partial_sha256),
        graphs=jobs.graphs_of(session, job.id),
        events=jobs.count_events(session, job.id),
        request_id=job.request_id,
        traceparent=job.traceparent,
    )


def _saved(step: int | None, sha256: str | None) -> tuple[int, str] | None:
    return None if step is None or sha256 is None else (step, sha256)


def _input(row: ModelRow | DatasetRow) -> Input:
    return Input(row.sha256, row.filename, row.preprocess if isinstance(row, DatasetRow) else None)
