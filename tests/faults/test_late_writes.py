"""An attempt that lost its job is late with everything; and jobs whose workers die. At the rows, on both databases."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.artifacts import repository as artifacts
from app.contracts.events import ArtifactFile, Finished, Log, Measured, Progress, Trained
from app.contracts.failure import Failure, FaultKind
from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Measurement
from app.contracts.messages import Queue
from app.contracts.states import IngestState, JobState
from app.db.base import utc_now
from app.db.database import Database
from app.db.ids import new_id
from app.jobs import repository, service
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.settings import Settings
from worker.clock import SteadyClock, WallClock
from worker.reporter import AttemptLostError, JobAttempt, Reporter

LEASE_S = 30.0
LOST_MOST = 10
HOUR_S = 3600.0


class Rows:
    """The rows of a service, done to as the API and time do."""

    def __init__(self, settings: Settings) -> None:
        self.reporter = Reporter(settings)
        self.database = Database(settings.database)

    def submit(self) -> str:
        model = ModelRow(
            id=new_id("mdl"), name="n", filename="n.onnx", sha256="0" * 64, size_bytes=1, state=IngestState.READY
        )
        spec = {"model": model.id, "recipe": [{"method": "prune.magnitude", "amount": 0.5}]}
        with self.database.write() as session:
            session.add(model)
            session.flush()
            return service.submit(session, JobSpec.model_validate(spec)).id

    def claim(self, job: str) -> JobAttempt:
        claimed = self.reporter.claim_job(job)
        assert claimed
        return claimed

    def cancel(self, job: str) -> None:
        with self.database.write() as session:
            service.cancel(session, job)

    def find(self, job: str) -> JobRow:
        with self.database.read() as session:
            return session.get_one(JobRow, job)

    def events(self, job: str) -> list[tuple[int, str, dict[str, Any]]]:
        with self.database.read() as session:
            rows, _ = repository.fetch_events(session, job, after_seq=0, limit=1000)
            return [(row.seq, row.type, row.data) for row in rows]

    def shift(self, job: str, seconds: float) -> None:
        """Have the job's lease end so much later, as a clock would have it that jumped."""
        later = self.find(job).lease_until + timedelta(seconds=seconds)  # type: ignore[operator]
        with self.database.write() as session:
            session.execute(update(JobRow).where(JobRow.id == job).values(lease_until=later))

    def lose_worker(self, job: str) -> None:
        """Its worker dies, and the sweep finds out."""
        with self.database.write() as session:
            ended = utc_now() - timedelta(seconds=1)
            session.execute(update(JobRow).where(JobRow.id == job).values(lease_until=ended))
        self.reporter.sweep([])


@pytest.fixture
def rows(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Rows]:
    opened = Rows(Settings(data=tmp_path, database_url=database_url, broker_url=broker_url, lease_s=LEASE_S))
    yield opened
    opened.reporter.close()
    opened.database.close()


ROW = Measurement(size_bytes=9, parameters=4, nonzero=4)
FILE = ArtifactFile(format="onnx", path="a.onnx", filename="n.onnx", size_bytes=9, sha256="1" * 64)
FAILURE = Failure(kind=FaultKind.OURS, code="ENGINE_DEFECT", message="it broke")


def finished(file: ArtifactFile) -> Finished:
    return Finished(artifacts=[file], layers=[], verdict=None, device="cpu", versions={}, engine_s=1, notes=[])


LATE = {
    "progress": lambda old: old.record(Progress(fraction=0.9, step=1, steps=1, phase="compress")),
    "a log line": lambda old: old.record(Log(message="late")),
    "a measured row": lambda old: old.record(Measured(role="original", row=ROW)),
    "a point of a curve": lambda old: old.record(Trained(step=0, epoch=1, updates=1, loss=1.0)),
    "a checkpoint": lambda old: old.save_checkpoint(0, "2" * 64),
    "a partial checkpoint": lambda old: old.save_partial_checkpoint(0, "3" * 64),
    "the artifact": lambda old: old.succeed(finished(FILE)),
    "a failure": lambda old: old.fail(FAILURE),
    "a cancel": lambda old: old.cancel(),
    "a release": lambda old: old.release(),
}


def refuse_all(rows: Rows, job: str, late: JobAttempt) -> None:
    before = rows.find(job).state, rows.find(job).revision, rows.events(job)
    for name, write in LATE.items():
        with pytest.raises(AttemptLostError):
            write(late)
        assert (rows.find(job).state, rows.find(job).revision, rows.events(job)) == before, name


@pytest.mark.parametrize("name", ["a failure", "a cancel", "a release"])
def test_an_end_that_is_told_twice_counts_once(rows: Rows, name: str) -> None:
    """As after a commit whose outcome was in doubt."""
    job = rows.submit()
    attempt = rows.claim(job)
    if name == "a cancel":
        rows.cancel(job)
    LATE[name](attempt)
    before = rows.find(job).state, rows.find(job).revision
    with pytest.raises(AttemptLostError):
        LATE[name](attempt)
    assert (rows.find(job).state, rows.find(job).revision) == before


def test_whatever_a_late_attempt_writes_is_refused(rows: Rows) -> None:
    job = rows.submit()
    old = rows.claim(job)
    rows.lose_worker(job)
    refuse_all(rows, job, old)  # while it waits for its next attempt
    new = rows.claim(job)
    refuse_all(rows, job, old)
    new.succeed(finished(FILE.model_copy(update={"sha256": "4" * 64})))
    refuse_all(rows, job, old)
    with rows.database.read() as session:
        assert [artifact.sha256 for artifact in artifacts.of_job(session, job)] == ["4" * 64]
    assert [seq for seq, _, _ in rows.events(job)] == list(range(1, len(rows.events(job)) + 1))


def test_a_job_that_ten_workers_died_with_is_stopped(rows: Rows) -> None:
    job = rows.submit()
    for _ in range(LOST_MOST - 1):
        rows.claim(job)
        rows.lose_worker(job)
    assert rows.find(job).state == JobState.QUEUED
    rows.claim(job)
    rows.lose_worker(job)
    stopped = rows.find(job)
    assert (stopped.state, stopped.failure and stopped.failure.code) == (JobState.FAILED, "ATTEMPTS_EXHAUSTED")


def test_a_job_that_gets_further_is_no_poison(rows: Rows) -> None:
    job = rows.submit()
    for number in range(2 * LOST_MOST):
        attempt = rows.claim(job)
        if number % 5 == 4:
            attempt.save_checkpoint(0, "5" * 64)
        rows.lose_worker(job)
    assert rows.find(job).state == JobState.QUEUED


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_jump_of_the_clock_takes_no_job_from_its_worker(rows: Rows, jump_s: float) -> None:
    job = rows.submit()
    attempt = rows.claim(job)
    rows.shift(job, -jump_s)  # what the lease looks like by the new time
    rows.reporter.sweep([], jump_s)
    assert rows.find(job).state == JobState.RUNNING
    attempt.record(Log(message="still here"))
    rows.lose_worker(job)
    assert rows.find(job).state == JobState.QUEUED


def test_a_lease_from_a_clock_that_was_ahead_ends(rows: Rows) -> None:
    job = rows.submit()
    rows.claim(job)
    rows.shift(job, HOUR_S)
    rows.reporter.sweep([])
    until = rows.find(job).lease_until
    assert until
    assert (until - utc_now()).total_seconds() < LEASE_S + 1
    rows.shift(job, -LEASE_S - 1)
    rows.reporter.sweep([])
    assert rows.find(job).state == JobState.QUEUED


def test_a_job_queued_by_a_clock_that_was_ahead_is_sent_again(rows: Rows, broker_url: str) -> None:
    from app.dispatch import make_celery
    from worker.sweeper import count_messages

    broker = make_celery(broker_url)
    with broker.connection_for_write() as connection:
        connection.default_channel.client.flushall()
    job = rows.submit()
    with rows.database.write() as session:
        ahead = utc_now() + timedelta(seconds=HOUR_S)
        session.execute(update(JobRow).where(JobRow.id == job).values(queued_at=ahead))
    rows.reporter.sweep([Queue.CPU])
    rows.reporter.close()  # sends what waits
    assert count_messages(broker, Queue.CPU) == 1
    broker.close()


def test_the_sweeper_notices_jumps_and_lets_corrections_pass() -> None:
    wall, passed = 1000.0, 50.0
    clock = WallClock(lambda: wall, lambda: passed)
    assert clock.take_jump() == 0
    passed, wall = 60.0, 1010.5
    assert clock.take_jump() == 0
    passed, wall = 70.0, 1020.5 + HOUR_S
    assert clock.take_jump() == pytest.approx(HOUR_S + 0.5)
    assert clock.take_jump() == 0
    wall -= 2 * HOUR_S
    assert clock.take_jump() == pytest.approx(-2 * HOUR_S)


def test_a_clock_is_steady_some_time_after_its_last_jump() -> None:
    wall, passed = 1000.0, 50.0
    clock = SteadyClock(lambda: wall, 600, harmless_s=60, passed=lambda: passed)

    def wait(seconds: float) -> bool:
        nonlocal wall, passed
        wall, passed = wall + seconds, passed + seconds
        return clock.is_steady()

    assert [wait(300), wait(299), wait(1)] == [False, False, True]
    wall += 59
    assert wait(1)
    wall += HOUR_S
    assert [wait(0), wait(599), wait(1)] == [False, False, True]
    wall -= HOUR_S
    assert [wait(0), wait(600)] == [False, True]
