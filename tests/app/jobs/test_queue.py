"""The queue, on SQLite and on PostgreSQL: who goes next, who has waited too long, and a clock that jumps."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from app.contracts.job_spec import JobSpec
from app.contracts.messages import Queue
from app.contracts.states import IngestState, JobState, Waiting
from app.db.base import utc_now
from app.db.database import Database
from app.db.ids import new_id
from app.jobs import repository
from app.jobs.queue import attempts, order, waiting
from app.jobs.tables import JobRow
from app.keys.tables import ProjectRow
from app.models.tables import ModelRow

LEASE_S = 60.0


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def make_job(database: Database) -> Callable[..., str]:
    """Insert a queued job of a project, queued `age_s` ago; returns its id."""

    def make(
        project: str = "default", *, age_s: float = 0, waiting_for: Waiting = Waiting.WORKER, **spec: object
    ) -> str:
        model_id = new_id("mdl")
        wanted = JobSpec.model_validate({"model": model_id, "recipe": [{"method": "quantize.float16"}], **spec})
        with database.write(project) as session:
            session.merge(ProjectRow(name=project))
            session.add(
                ModelRow(id=model_id, project=project, name="n", filename="f", sha256="0", size_bytes=1, state="ready")
            )
            session.flush()
            row = repository.insert_queued(session, wanted, waiting_for)
            queued_at = row.queued_at - timedelta(seconds=age_s)
            aged = {"queued_at": queued_at, "rank": order.rank(queued_at, wanted.priority)}
            session.execute(update(JobRow).where(JobRow.id == row.id).values(**aged))
        return row.id

    return make


def take(database: Database, queue: Queue = Queue.CPU) -> str | None:
    """Claim what goes next, as a worker does."""
    with database.write() as session:
        head = order.find_next(session, queue)
        if head is None:
            return None
        assert attempts.claim(session, head.job_id, LEASE_S)
        order.note_served(session, head.project)
        return head.job_id


def set_times(database: Database, job_id: str, **seconds: float) -> None:
    times = {name: utc_now() + timedelta(seconds=after) for name, after in seconds.items()}
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(**times))


def test_priority_then_age_decide_who_is_next(database: Database, make_job: Callable[..., str]) -> None:
    low, first, second, high = make_job(priority=1), make_job(), make_job(), make_job(priority=9)
    with database.read() as session:
        ahead = [order.count_ahead(session, session.get_one(JobRow, job_id)) for job_id in (high, first, second, low)]
    assert ahead == [0, 1, 2, 3]
    assert [take(database) for _ in range(5)] == [high, first, second, low, None]


def test_waiting_makes_up_for_priority(database: Database, make_job: Callable[..., str]) -> None:
    urgent = make_job(priority=6)
    patient = make_job(priority=5, age_s=order.AGEING_S + 1)
    newer = make_job(priority=5, age_s=order.AGEING_S - 1)
    assert [take(database) for _ in range(3)] == [patient, urgent, newer]


def test_projects_take_turns_however_many_jobs_one_has(database: Database, make_job: Callable[..., str]) -> None:
    many = [make_job("many", priority=9) for _ in range(5)]
    few = [make_job("few", priority=0) for _ in range(2)]
    taken = [take(database) for _ in range(7)]
    assert {job in few for job in taken[:2]} == {True, False}
    assert set(taken[:4]) == {*many[:2], *few}
    assert taken[4:] == many[2:]


def test_the_project_with_fewer_running_goes_first(database: Database, make_job: Callable[..., str]) -> None:
    running = [make_job("busy") for _ in range(2)]
    assert [take(database) for _ in range(2)] == running
    last = make_job("busy")
    others = [make_job("idle") for _ in range(2)]
    assert take(database) == others[0]
    assert take(database) == others[1]
    assert take(database) == last


def test_what_waits_for_inputs_or_for_its_time_is_passed_over(database: Database, make_job: Callable[..., str]) -> None:
    make_job(waiting_for=Waiting.INPUTS, priority=9)
    later = make_job(priority=9)
    set_times(database, later, not_before=60)
    on_gpu = make_job(device="cuda")
    ready = make_job(priority=0)
    assert [take(database), take(database)] == [ready, None]
    assert take(database, Queue.CUDA) == on_gpu
    set_times(database, later, not_before=-1)
    assert take(database) == later


def test_a_job_that_comes_back_keeps_its_place(database: Database, make_job: Callable[..., str]) -> None:
    first, second = make_job(), make_job()
    assert take(database) == first
    with database.write() as session:
        assert attempts.hand_back(session, first, 1, {})
    assert [take(database), take(database)] == [first, second]


def test_the_sweeper_finds_what_ran_out(database: Database, make_job: Callable[..., str]) -> None:
    alive, dead, overdue, settled = (make_job() for _ in range(4))
    assert [take(database), take(database)] == [alive, dead]
    set_times(database, dead, lease_until=-1)
    set_times(database, overdue, queue_until=-1)
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == settled).values(waiting_for=Waiting.INPUTS))
        unchecked = make_unchecked(session)
    soon = utc_now() + timedelta(seconds=1)
    with database.read() as session:
        assert [row.id for row in waiting.find_expired(session)] == [dead]
        assert [row.id for row in waiting.find_overdue(session)] == [overdue]
        assert [row.id for row in waiting.find_settled(session, soon)] == [settled]
        assert waiting.find_startable(session, Queue.CPU, soon) == [overdue]
        assert waiting.find_startable(session, Queue.CPU, soon - timedelta(minutes=1)) == []
        assert repository.is_in_use(session, session.get_one(JobRow, alive).model_id)
        assert waiting.count_by_state(session) == {"running": 2, "queued": 3}
        assert session.get_one(JobRow, unchecked).waiting_for == Waiting.INPUTS


def make_unchecked(session: object) -> str:
    """A job whose model is still being checked."""
    row = ModelRow(id=new_id("mdl"), name="n", filename="f", sha256="0", size_bytes=1, state=IngestState.CHECKING)
    session.add(row)
    session.flush()
    spec = JobSpec.model_validate({"model": row.id, "recipe": [{"method": "quantize.float16"}]})
    return repository.insert_queued(session, spec, Waiting.INPUTS).id


def waits_s(database: Database, job_id: str) -> float:
    """How long the job may wait from now, seconds."""
    with database.read() as session:
        return (session.get_one(JobRow, job_id).queue_until - utc_now()).total_seconds()


def jump(database: Database, seconds: float) -> None:
    with database.write() as session:
        waiting.follow_jump(session, seconds)


def test_a_clock_that_jumps_ahead_ends_no_wait(database: Database, make_job: Callable[..., str]) -> None:
    before, after = (make_job(limits={"queue_s": 60}) for _ in range(2))
    set_times(database, before, queued_at=-86_400, queue_until=60 - 86_400)  # by the clock as it was
    for _ in range(2):  # two sweepers notice it
        jump(database, 86_400)
        assert waits_s(database, before) == pytest.approx(60, abs=5)
        assert waits_s(database, after) == pytest.approx(60, abs=5)


def test_a_clock_that_jumps_back_makes_no_wait_longer(database: Database, make_job: Callable[..., str]) -> None:
    before, after = (make_job(limits={"queue_s": 60}) for _ in range(2))
    set_times(database, before, queued_at=86_400, queue_until=60 + 86_400)
    jump(database, -86_400)
    assert waits_s(database, before) == pytest.approx(60, abs=5)
    assert waits_s(database, after) == pytest.approx(60, abs=5)


def test_a_pause_from_a_clock_that_was_ahead_is_ended(database: Database, make_job: Callable[..., str]) -> None:
    ahead, usual = make_job(priority=9), make_job(priority=9)
    set_times(database, ahead, not_before=86_400)
    set_times(database, usual, not_before=300)
    with database.write() as session:
        waiting.clamp_pauses(session, 300)
    assert [take(database), take(database)] == [ahead, None]


def test_a_job_that_only_a_newer_version_can_read_holds_up_no_other(
    database: Database, make_job: Callable[..., str]
) -> None:
    strange, plain = make_job(priority=9), make_job()
    with database.write() as session:
        session.connection().execute(text("UPDATE jobs SET spec = :spec WHERE id = :id"), {"spec": "{}", "id": strange})
        waiting.put_off(session, strange, 60)
    assert [take(database), take(database)] == [plain, None]
    set_times(database, strange, queue_until=-1)
    with database.read() as session:
        assert [row.id for row in waiting.find_overdue(session)] == [strange]


def test_a_lease_from_a_clock_that_was_ahead_is_cut(database: Database, make_job: Callable[..., str]) -> None:
    ahead, usual = make_job(), make_job()
    assert [take(database), take(database)] == [ahead, usual]
    set_times(database, ahead, lease_until=86_400)
    with database.write() as session:
        kept = session.get_one(JobRow, usual).lease_until
        waiting.clamp_leases(session, LEASE_S)
        cut = session.get_one(JobRow, ahead, populate_existing=True)
        assert cut.lease_until < utc_now() + timedelta(seconds=LEASE_S + 1)
        assert session.get_one(JobRow, usual, populate_existing=True).lease_until == kept
        assert cut.state == JobState.RUNNING
