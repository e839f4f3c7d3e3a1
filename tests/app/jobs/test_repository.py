"""The guarded moves of jobs, on SQLite and on PostgreSQL: races have one winner, late writers lose."""

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.orm import Session

from app.contracts.events import Progress
from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Measurement
from app.contracts.states import JobState, Waiting
from app.db.database import Database
from app.db.ids import new_id
from app.jobs import repository
from app.jobs.queue import attempts, moves
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.retention.repository import find_referenced

LEASE_S = 60.0
PROGRESS = Progress(fraction=0.5, step=1, steps=1, phase="compress")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def make_job(database: Database) -> Callable[..., str]:
    """Insert a queued job; returns its id."""

    def make(waiting_for: Waiting = Waiting.WORKER, **fields: object) -> str:
        model_id = new_id("mdl")
        spec = JobSpec.model_validate({"model": model_id, "recipe": [{"method": "quantize.float16"}], **fields})
        with database.write() as session:
            session.add(ModelRow(id=model_id, name="n", filename="f", sha256="0", size_bytes=1))
            session.flush()
            return repository.insert_queued(session, spec, waiting_for).id

    return make


def claim(database: Database, job_id: str) -> int | None:
    with database.write() as session:
        row = attempts.claim(session, job_id, LEASE_S)
    return row.attempt if row else None


def test_of_many_claims_one_wins(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    won: list[int | None] = []
    threads = [threading.Thread(target=lambda: won.append(claim(database, job_id))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(attempt for attempt in won if attempt) == [1]
    assert len(won) == 8


def test_a_late_writer_loses_every_write(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    assert claim(database, job_id) == 1
    with database.write() as session:
        assert moves.move(session, job_id, JobState.QUEUED, attempt=1)
    assert claim(database, job_id) == 2
    with database.write() as session:
        assert attempts.renew(session, job_id, 1, LEASE_S) is None
        assert not attempts.set_progress(session, job_id, 1, PROGRESS)
        assert not attempts.save_checkpoint(session, job_id, 1, 0, "0" * 64)
        assert not attempts.record_event(session, job_id, 1, "log", {})
        assert not moves.move(session, job_id, JobState.SUCCEEDED, attempt=1)
        assert attempts.renew(session, job_id, 2, LEASE_S) == JobState.RUNNING
        assert moves.move(session, job_id, JobState.SUCCEEDED, attempt=2)
        assert attempts.renew(session, job_id, 2, LEASE_S) is None


def test_a_final_job_never_moves_again(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    with database.write() as session:
        assert moves.cancel_queued(session, job_id)
        assert not any(moves.move(session, job_id, state) for state in JobState)
        row = repository.get(session, job_id)
        assert row is not None
        session.refresh(row)
        assert row.state == JobState.CANCELLED
        assert row.finished_at is not None


def test_every_write_changes_the_revision(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    seen = []

    def look() -> None:
        with database.connection() as connection:
            seen.extend(repository.read_revisions(connection, [job_id]))

    look()
    claim(database, job_id)
    look()
    for write in (
        lambda session: attempts.set_progress(session, job_id, 1, PROGRESS),
        lambda session: attempts.record_event(session, job_id, 1, "log", {"message": "m"}),
        lambda session: repository.put_measurement(
            session,
            repository.measurement_row(job_id, 0, "original", None, Measurement(size_bytes=1, parameters=1, nonzero=1)),
        ),
        lambda session: moves.move(session, job_id, JobState.FAILED, attempt=1),
    ):
        with database.write() as session:
            write(session)
        look()
    revisions = [row[-1] for row in seen]
    assert revisions == sorted(set(revisions))


def test_events_are_numbered_without_gaps_and_found_by_id(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    claim(database, job_id)
    for number in range(5):
        with database.write() as session:
            attempts.record_event(session, job_id, 1, "log", {"message": str(number)})
    with database.read() as session:
        rows, has_more = repository.fetch_events(session, job_id, after_seq=0, limit=3)
        assert [row.seq for row in rows] == [1, 2, 3]
        assert has_more
        assert repository.find_event_seq(session, job_id, rows[1].id) == 2
        rest, has_more = repository.fetch_events(session, job_id, after_seq=3, limit=10)
        assert [row.data.get("message") for row in rest] == ["1", "2", "3", "4"]
        assert not has_more
        assert repository.count_events(session, job_id) == 7


def test_a_later_attempt_replaces_a_measured_row(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    for size in (10, 20):
        with database.write() as session:
            row = Measurement(size_bytes=size, parameters=1, nonzero=1)
            repository.put_measurement(session, repository.measurement_row(job_id, 0, "original", None, row))
    with database.read() as session:
        assert [row.row.size_bytes for row in repository.measurements_of(session, job_id)] == [20]


def test_lists_are_filtered_and_paged_newest_first(database: Database, make_job: Callable[..., str]) -> None:
    ids = [make_job(tags={"team": "vision" if number % 2 else "audio"}) for number in range(5)]
    with database.read() as session:
        first, has_more = repository.fetch(session, repository.JobQuery(limit=2))
        assert [row.id for row in first] == sorted(ids, reverse=True)[:2]
        assert has_more
        rest, has_more = repository.fetch(session, repository.JobQuery(limit=10, after=first[-1].id))
        assert [row.id for row in rest] == sorted(ids, reverse=True)[2:]
        assert not has_more
        tagged, _ = repository.fetch(session, repository.JobQuery(tag="team=vision"))
        assert {row.id for row in tagged} == {ids[1], ids[3]}
        assert len(repository.fetch(session, repository.JobQuery(tag="team"))[0]) == 5
        assert repository.fetch(session, repository.JobQuery(state=JobState.RUNNING))[0] == []


def test_attempts_are_counted_from_the_last_checkpoint(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    counted = []

    def look(change: Callable[[Session], object]) -> None:
        with database.write() as session:
            assert change(session)
            counted.append(session.get_one(JobRow, job_id, populate_existing=True).failed_starts)

    def requeue(attempt: int, **values: object) -> Callable[[Session], bool]:
        return lambda session: moves.move(session, job_id, JobState.QUEUED, attempt=attempt, values=values)

    def take(session: Session) -> object:
        return attempts.claim(session, job_id, LEASE_S)

    for change in (
        take,
        requeue(1, handed_back=JobRow.handed_back + 1),
        take,
        requeue(2),
        take,
        lambda session: attempts.save_partial_checkpoint(session, job_id, 3, 0, "0" * 64),
        requeue(3, handed_back=JobRow.handed_back + 1),
        take,
        lambda session: attempts.save_checkpoint(session, job_id, 4, 0, "1" * 64),
        requeue(4),
        take,
    ):
        look(change)
    assert counted == [1, 0, 1, 1, 2, 1, 0, 1, 1, 1, 2]


def test_a_whole_checkpoint_replaces_the_partial_one(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    claim(database, job_id)
    with database.write() as session:
        assert attempts.save_partial_checkpoint(session, job_id, 1, 0, "0" * 64)
        assert find_referenced(session, ["0" * 64])
        assert not attempts.save_partial_checkpoint(session, job_id, 2, 0, "1" * 64)
        assert attempts.save_checkpoint(session, job_id, 1, 0, "2" * 64)
        assert not find_referenced(session, ["0" * 64])
        row = session.get_one(JobRow, job_id, populate_existing=True)
        assert (row.checkpoint_step, row.partial_step, row.partial_sha256) == (0, None, None)


def test_what_is_over_has_no_checkpoints(database: Database, make_job: Callable[..., str]) -> None:
    job_id = make_job()
    claim(database, job_id)
    with database.write() as session:
        assert attempts.save_checkpoint(session, job_id, 1, 0, "0" * 64)
        assert attempts.save_partial_checkpoint(session, job_id, 1, 1, "1" * 64)
        moves.move(session, job_id, JobState.FAILED, attempt=1)
        row = session.get_one(JobRow, job_id, populate_existing=True)
        assert (row.checkpoint_sha256, row.partial_sha256, row.lease_until) == (None, None, None)


def test_kept_graphs_and_other_models(database: Database, make_job: Callable[..., str]) -> None:
    teacher = new_id("mdl")
    with database.write() as session:
        session.add(ModelRow(id=teacher, name="n", filename="f", sha256="0", size_bytes=1))
    job_id = make_job(Waiting.INPUTS, recipe=[{"method": "train", "distill": {"teacher": teacher}}])
    make_job()
    with database.write() as session:
        assert [row.id for row in repository.find_queued_on(session, teacher)] == [job_id]
        for digest in ("0" * 64, "1" * 64):
            repository.keep_graph(session, job_id, 0, digest)
        repository.keep_graph(session, job_id, 2, "2" * 64)
        assert repository.graphs_of(session, job_id) == {0: "1" * 64, 2: "2" * 64}
