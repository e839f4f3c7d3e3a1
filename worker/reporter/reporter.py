"""Claiming: the worker asks for the work that a message pointed to, and gets it or not."""

from collections.abc import Collection
from enum import Enum, auto

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.contracts.messages import Queue
from app.contracts.states import JobState
from app.datasets.tables import DatasetRow
from app.db import ingest
from app.db.clock import read_clock
from app.db.database import Database
from app.db.patience import Ledger
from app.dispatch import Dispatcher
from app.jobs.queue import attempts, moves
from app.jobs.queue.order import find_next, note_served
from app.jobs.queue.waiting import put_off
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

_UNREADABLE_S = 60.0
_log = structlog.get_logger(__name__)


class Settled(Enum):
    """What became of the job at the head of a queue when there is nothing to do for it any more."""

    SETTLED = auto()


class Reporter:
    """Claims jobs and uploads; what it gives reports their fate."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dispatcher = Dispatcher(settings.broker)
        self._database = Database(settings.database, self._dispatcher)
        # Longer makes no sense: by then the lease is gone and another worker may have the row.
        self._ledger = Ledger(self._database, settings.lease_s)

    def claim_job(self, hint: str) -> JobAttempt | None:
        """The job that goes next in the queue of job `hint`.

        On the way those are failed that never can run, and those answered that are done already: one in a transaction,
        lest many of them hold up all other writers.
        """
        while taken := self._ledger.write(lambda session: self._take_next(session, hint)):
            if isinstance(taken, Claim):
                return JobAttempt(taken, AttemptLedger(self._ledger), self._settings)
        return None

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

    def read_clock(self) -> float:
        """The time by the clock that leases and limits are measured by, seconds. Raises the driver's error."""
        with self._database.read() as session:
            return read_clock(session)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
        self._dispatcher.close()

    def _take_next(self, session: Session, hint: str) -> "Claim | Settled | None":
        queue = moves.find_queue(session, hint)
        head = find_next(session, queue) if queue else None
        if head is None:
            return None
        try:
            job = session.get(JobRow, head.job_id, populate_existing=True)
        except ValidationError:
            _log.exception("this version cannot read a job; another may", id=head.job_id)
            put_off(session, head.job_id, _UNREADABLE_S)
            return Settled.SETTLED
        if job is None:  # deleted just now
            return Settled.SETTLED
        if failure := find_obstacle(session, job, self._settings.max_attempts):
            moves.move(session, job.id, JobState.FAILED, attempt=job.attempt, values={"failure": failure})
        elif claimed := attempts.claim(session, job.id, self._settings.lease_s):
            note_served(session, head.project)
            claim = describe(session, claimed)
            return Settled.SETTLED if answer_from_twin(session, claim) else claim
        return Settled.SETTLED

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
