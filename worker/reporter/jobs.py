"""One attempt at a job, as it is reported: progress, events, measured rows, checkpoints and the end."""

import math
import time
from typing import Any

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.artifacts.tables import ArtifactRow
from app.contracts.events import Finished, Log, Measured, Progress, Trained
from app.contracts.failure import Failure
from app.contracts.references import find_teaching_steps
from app.contracts.states import JobState
from app.db.ids import new_id
from app.jobs import repository as jobs
from app.jobs.queue import attempts
from app.jobs.tables import JobRow
from app.retention.repository import find_referenced
from app.settings import Settings
from worker.reporter.claims import Claim
from worker.reporter.fencing import AttemptLedger, hold
from worker.reporter.retries import find_retry
from worker.supervisor import Command

PROGRESS_S = 0.2
"""Progress is written at most so often; what comes between is replaced by what comes after."""

Reported = Progress | Log | Measured | Trained


class JobAttempt:
    """A claimed job. Every method but `renew` raises AttemptLostError once another attempt has it."""

    def __init__(self, claim: Claim, ledger: AttemptLedger, settings: Settings) -> None:
        self.claim = claim
        self._ledger = ledger
        self._settings = settings
        self._progress: Progress | None = None
        self._written_at = 0.0
        self._events_left = settings.events_per_job - claim.events
        self._done = claim.checkpoint[0] if claim.checkpoint else -1

    def record(self, event: Reported) -> None:
        """Store what the engine says. Progress may wait for what is written next."""
        if isinstance(event, Progress):
            self._progress = event
            self.flush()
            return
        self._ledger.write(lambda session: self._store(session, event))
        self._written()

    def flush(self) -> None:
        """Store progress that has waited long enough."""
        if self._progress is not None and time.monotonic() >= self._written_at + PROGRESS_S:
            self._ledger.write(self._write_progress)
            self._written()

    def renew(self) -> Command:
        """Keep the lease and hear what is wanted. The one method that another thread may call."""
        claim, lease_s = self.claim, self._settings.lease_s
        match self._ledger.write(lambda session: attempts.renew(session, claim.id, claim.attempt, lease_s)):
            case None:
                return Command.GIVE_UP
            case JobState.CANCELLING:
                return Command.CANCEL
            case _:
                return Command.CONTINUE

    def save_checkpoint(self, step: int, sha256: str) -> str | None:
        """The graph after recipe step `step` (from 0) is stored; a retry goes on behind it.

        Gives the digest of a blob that no row refers to any more: what the step had left on its way.
        """

        def change(session: Session) -> str | None:
            superseded = self._partial_sha256(session)
            hold(attempts.save_checkpoint(session, self.claim.id, self.claim.attempt, step, sha256))
            if step in find_teaching_steps(self.claim.spec.recipe):
                jobs.keep_graph(session, self.claim.id, step, sha256)
            return _unneeded(session, superseded)

        superseded = self._ledger.write(change)
        self._done = step
        return superseded

    def can_resume_within(self, step: int) -> bool:
        """Whether a retry would begin with `step`, and could so use what it leaves on its way."""
        return step == self._done + 1

    def save_partial_checkpoint(self, step: int, sha256: str) -> str | None:
        """What step `step` (from 0) has done so far is stored; a retry goes on within it.

        Gives the digest of a blob that no row refers to any more: what was saved before.
        """

        def change(session: Session) -> str | None:
            superseded = self._partial_sha256(session)
            if superseded == sha256:
                return None  # it got no further, so its attempts are not counted anew
            hold(attempts.save_partial_checkpoint(session, self.claim.id, self.claim.attempt, step, sha256))
            return _unneeded(session, superseded)

        return self._ledger.write(change)

    def succeed(self, finished: Finished) -> None:
        """The artifacts are stored: the job is done."""
        steps = len(self.claim.spec.recipe)
        told = ("verdict", "layers", "notes", "versions", "device", "engine_s")
        values = {
            "progress": Progress(fraction=1, step=steps, steps=steps, phase="measure", message="done", eta_s=0),
            **{name: getattr(finished, name) for name in told},
        }

        def change(session: Session) -> None:
            for file in finished.artifacts:
                row = {name: getattr(file, name) for name in ("format", "filename", "sha256", "size_bytes")}
                artifacts.add(
                    session, ArtifactRow(id=new_id("art"), job_id=self.claim.id, project=self.claim.project, **row)
                )
            self._end(session, JobState.SUCCEEDED, values)  # last: webhooks are told of the artifacts, too

        self._ledger.write(change)

    def fail(self, failure: Failure) -> None:
        """The job failed; one that a retry can help is queued again while it has starts left, for the sweeper."""

        def change(session: Session) -> None:
            job = jobs.get(session, self.claim.id)
            values = find_retry(job, failure, self._settings.max_attempts, job.queue_s) if job is not None else None
            if values is not None and self._hand_back(session, values):
                log_retry(session, self.claim.id, failure.message)
            else:
                self._end(session, JobState.FAILED, {"failure": failure})

        self._ledger.write(change)

    def cancel(self) -> None:
        """It was killed because its user asked."""
        self._ledger.write(lambda session: self._end(session, JobState.CANCELLED, {}))

    def release(self) -> None:
        """Hand the job back because this worker stops: that does not count as an attempt."""

        def change(session: Session) -> None:
            if not self._hand_back(session, {"handed_back": JobRow.handed_back + 1}):
                self._end(session, JobState.CANCELLED, {})

        self._ledger.write(change)

    def _hand_back(self, session: Session, values: dict[str, Any]) -> bool:
        """False when a cancel was asked for meanwhile, or the job is another attempt's."""
        self._write_progress(session)
        return attempts.hand_back(session, self.claim.id, self.claim.attempt, values)

    def _end(self, session: Session, state: JobState, values: dict[str, Any]) -> None:
        self._write_progress(session)
        hold(attempts.end(session, self.claim.id, self.claim.attempt, state, values))

    def _partial_sha256(self, session: Session) -> str | None:
        job = jobs.get(session, self.claim.id)
        return job.partial_sha256 if job else None

    def _store(self, session: Session, event: Log | Measured | Trained) -> None:
        self._write_progress(session)
        self._write_event(session, event)
        if isinstance(event, Measured):
            row = jobs.measurement_row(self.claim.id, self._position(event), event.role, event.method, event.row)
            jobs.put_measurement(session, row)

    def _write_progress(self, session: Session) -> None:
        if self._progress is None:
            return
        hold(attempts.set_progress(session, self.claim.id, self.claim.attempt, self._progress))
        self._write_event(session, self._progress)

    def _write_event(self, session: Session, event: Reported) -> None:
        """Measured rows are stored whatever their number; so many there cannot be.

        A loss curve may have as many points as there may be other events.
        """
        most = {Measured: math.inf, Trained: self._settings.events_per_job}.get(type(event), 0)
        if self._events_left + most > 0:
            data = event.model_dump(mode="json", exclude={"type"})
            hold(attempts.record_event(session, self.claim.id, self.claim.attempt, event.type, data))

    def _written(self) -> None:
        self._progress = None
        self._written_at = time.monotonic()
        self._events_left -= 1

    def _position(self, event: Measured) -> int:
        match event.role:
            case "original":
                return 0
            case "step":
                return 1 + (event.step or 0)
            case "final":
                return 1 + len(self.claim.spec.recipe)


def _unneeded(session: Session, sha256: str | None) -> str | None:
    return None if sha256 is None or find_referenced(session, [sha256]) else sha256


def log_retry(session: Session, job_id: str, reason: str) -> None:
    """Tell the user why a job is queued once more. Call it in the transaction that queued it."""
    log = Log(level="warning", message=f"queued once more: {reason}")
    jobs.add_event(session, job_id, log.type, log.model_dump(mode="json", exclude={"type"}))
