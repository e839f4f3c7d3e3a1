"""Claiming: the worker asks for the work that a message pointed to, and gets it or not."""

from collections.abc import Collection

from sqlalchemy.orm import Session

from app.contracts.messages import Queue
from app.contracts.states import JobState
from app.datasets.tables import DatasetRow
from app.db import ingest
from app.db.database import Database
from app.db.patience import Ledger
from app.dispatch import Dispatcher
from app.jobs import repository as jobs
from app.jobs.queue.order import find_next, note_served
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.settings import Settings
from worker.reporter.claims import Claim, describe
from worker.reporter.fencing import AttemptLedger
from worker.reporter.ingests import IngestAttempt, Upload, Uploads
from worker.reporter.jobs import JobAttempt
from worker.reporter.queued import find_obstacle
from worker.reporter.reuse import answer_from_twin
from worker.reporter.sweep import sweep


class Reporter:
    """Claims jobs and uploads; what it gives reports their fate."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dispatcher = Dispatcher(settings.broker)
        self._database = Database(settings.database, self._dispatcher)
        # Longer makes no sense: by then the lease is gone and another worker may have the row.
        self._ledger = Ledger(self._database, settings.lease_s)

    def claim_job(self, hint: str) -> JobAttempt | None:
        """The job that goes next in the queue of job `hint`; on the way those are failed that never can run."""
        claim = self._ledger.write(lambda session: self._claim_job(session, hint))
        return JobAttempt(claim, AttemptLedger(self._ledger), self._settings) if claim else None

    def claim_model(self, model_id: str) -> IngestAttempt | None:
        """The uploaded model, unless another worker has it or it is done."""
        return self._claim_upload(ModelRow, model_id)

    def claim_dataset(self, dataset_id: str) -> IngestAttempt | None:
        """The uploaded dataset, unless another worker has it or it is done."""
        return self._claim_upload(DatasetRow, dataset_id)

    def sweep(self, drained: Collection[Queue], jump_s: float = 0) -> None:
        """Put right what dead workers and lost messages left behind. Raises the driver's error, without patience.

        `jump_s`: how far the clock jumped since the last sweep, seconds.
        """
        with self._database.write() as session:
            sweep(session, self._settings, drained, jump_s)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
        self._dispatcher.close()

    def _claim_job(self, session: Session, hint: str) -> Claim | None:
        queue = jobs.find_queue(session, hint)
        while queue and (head := find_next(session, queue)):
            job = session.get_one(JobRow, head.job_id, populate_existing=True)
            if failure := find_obstacle(session, job, self._settings.max_attempts):
                jobs.move(session, job.id, JobState.FAILED, attempt=job.attempt, values={"failure": failure})
            elif claimed := jobs.claim(session, job.id, self._settings.lease_s):
                claim = describe(session, claimed)
                if not answer_from_twin(session, claim):
                    note_served(session, head.project)
                    return claim
        return None

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
        return IngestAttempt(upload, AttemptLedger(self._ledger), self._settings) if upload else None
