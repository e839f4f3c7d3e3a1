"""One attempt at checking an upload, a model or a dataset, as it is reported."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.contracts.facts import DatasetFacts, ModelFacts
from app.contracts.failure import Failure
from app.contracts.preprocess import Preprocess
from app.datasets.tables import DatasetRow
from app.db import ingest
from app.models.tables import ModelRow
from app.settings import Settings
from worker.reporter.fencing import AttemptLedger, hold
from worker.reporter.queued import settle_those_waiting
from worker.reporter.retries import find_retry
from worker.supervisor import Command

Uploads = type[ModelRow] | type[DatasetRow]

_WAITS_S = 24 * 3600.0
"""How long an upload waits for storage that is away or full, from when it came."""


@dataclass(frozen=True)
class Upload:
    """What a worker must know of the upload it has taken. `attempt` is the fencing token."""

    table: Uploads
    id: str
    attempt: int
    sha256: str
    filename: str
    format: str | None
    preprocess: Preprocess | None


class IngestAttempt:
    """A claimed upload. Every method but `renew` raises AttemptLostError once another attempt has it."""

    def __init__(self, upload: Upload, ledger: AttemptLedger, settings: Settings) -> None:
        self.upload = upload
        self._ledger = ledger
        self._settings = settings

    def renew(self) -> Command:
        """Keep the lease and hear what is wanted. The one method that another thread may call."""
        upload = self.upload
        lease_s = self._settings.lease_s
        kept = self._ledger.write(
            lambda session: ingest.renew(session, upload.table, upload.id, upload.attempt, lease_s)
        )
        return Command.CONTINUE if kept else Command.GIVE_UP

    def accept(self, facts: ModelFacts | DatasetFacts, **columns: Any) -> None:
        """The upload is usable; `columns` are what else its row is to hold."""

        def change(session: Session) -> None:
            upload, values = self.upload, {"facts": facts, "lease_until": None, **columns}
            hold(ingest.finish(session, upload.table, upload.id, upload.attempt, values))
            settle_those_waiting(session, upload.id, self._settings.max_attempts)

        self._ledger.write(change)

    def fail(self, failure: Failure) -> None:
        """The upload cannot be used; what a retry can help is left to the sweeper while there are attempts left."""

        def change(session: Session) -> None:
            upload = self.upload
            row = session.get(upload.table, upload.id)
            values = find_retry(row, failure, self._settings.max_attempts, _WAITS_S) if row is not None else None
            if values is not None:
                hold(ingest.release(session, upload.table, upload.id, upload.attempt, values))
                return
            hold(ingest.reject(session, upload.table, upload.id, upload.attempt, failure))
            settle_those_waiting(session, upload.id, self._settings.max_attempts)

        self._ledger.write(change)

    def release(self) -> None:
        """Hand the upload back because this worker stops."""
        upload = self.upload
        given_back = {"handed_back": upload.table.handed_back + 1}
        self._ledger.write(
            lambda session: hold(ingest.release(session, upload.table, upload.id, upload.attempt, given_back))
        )
