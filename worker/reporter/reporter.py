"""Claiming: the worker asks for the work that a message pointed to, and gets it or not."""

from collections.abc import Collection

from sqlalchemy.orm import Session

from app.contracts.messages import Queue
from app.contracts.states import JobState
from app.datasets.tables import DatasetRow
from app.db import ingest
from app.db.database import Database
from app.dispatch import Dispatcher
from app.jobs import repository as jobs
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.settings import Settings
from worker.reporter.ingests import IngestAttempt, Upload, Uploads
from worker.reporter.jobs import Claim, Input, JobAttempt
from worker.reporter.ledger import Ledger
from worker.reporter.queued import data_of, find_obstacle, is_ready, other_models_of
from worker.reporter.sweep import sweep


class Reporter:
    """Claims jobs and uploads; what it gives reports their fate."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dispatcher = Dispatcher(settings.broker)
        self._database = Database(settings.database, self._dispatcher)
        # Longer makes no sense: by then the lease is gone and another worker may have the row.
        self._ledger = Ledger(self._database, settings.lease_s)

    def claim_job(self, job_id: str) -> JobAttempt | None:
        """The job if it can run now. One that never can is failed; one that waits for its inputs is left queued."""
        claim = self._ledger.write(lambda session: self._claim_job(session, job_id))
        return JobAttempt(claim, self._ledger, self._settings) if claim else None

    def claim_model(self, model_id: str) -> IngestAttempt | None:
        """The uploaded model, unless another worker has it or it is done."""
        return self._claim_upload(ModelRow, model_id)

    def claim_dataset(self, dataset_id: str) -> IngestAttempt | None:
        """The uploaded dataset, unless another worker has it or it is done."""
        return self._claim_upload(DatasetRow, dataset_id)

    def sweep(self, drained: Collection[Queue]) -> list[str]:
        """Put right what dead workers and lost messages left behind; gives the digests of blobs that none needs now.

        Raises the driver's error, without patience.
        """
        with self._database.write() as session:
            return sweep(session, self._settings, drained)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
        self._dispatcher.close()

    def _claim_job(self, session: Session, job_id: str) -> Claim | None:
        job = jobs.get(session, job_id)
        if job is None or job.state != JobState.QUEUED:
            return None
        if failure := find_obstacle(session, job, self._settings.max_attempts):
            jobs.move(session, job_id, JobState.FAILED, attempt=job.attempt, values={"failure": failure})
            return None
        if not is_ready(session, job):
            return None
        claimed = jobs.claim(session, job_id, self._settings.lease_s)
        return _describe(session, claimed) if claimed else None

    def _claim_upload(self, table: Uploads, id_: str) -> IngestAttempt | None:
        def change(session: Session) -> Upload | None:
            row = ingest.claim(session, table, id_, self._settings.lease_s)
            return (
                Upload(
                    table=table,
                    id=row.id,
                    attempt=row.attempt,
                    sha256=row.sha256,
                    filename=row.filename,
                    format=row.format if isinstance(row, ModelRow) else None,
                    preprocess=row.preprocess if isinstance(row, DatasetRow) else None,
                )
                if row
                else None
            )

        upload = self._ledger.write(change)
        return IngestAttempt(upload, self._ledger, self._settings) if upload else None


def _describe(session: Session, job: JobRow) -> Claim:
    """Call it for a job that is ready: its inputs are there."""
    return Claim(
        id=job.id,
        attempt=job.attempt,
        spec=job.spec,
        model=_input(session.get_one(ModelRow, job.model_id)),
        other_models={id_: _input(row) for id_, row in other_models_of(session, job).items() if row},
        data={role: _input(row) for role, row in data_of(session, job).items() if row},
        checkpoint=_saved(job.checkpoint_step, job.checkpoint_sha256),
        partial_checkpoint=_saved(job.partial_step, job.partial_sha256),
        graphs=jobs.graphs_of(session, job.id),
        events=jobs.count_events(session, job.id),
    )


def _saved(step: int | None, sha256: str | None) -> tuple[int, str] | None:
    return None if step is None or sha256 is None else (step, sha256)


def _input(row: ModelRow | DatasetRow) -> Input:
    return Input(row.sha256, row.filename, row.preprocess if isinstance(row, DatasetRow) else None)
