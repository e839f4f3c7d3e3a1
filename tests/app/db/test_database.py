"""A write is whole or not at all, messages leave only after the commit, and writers do not starve each other."""

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from app.contracts.messages import Message, Queue, TaskName
from app.db.database import Database, send_after_commit

MESSAGE = Message(task=TaskName.RUN_JOB, id="job_1", queue=Queue.CPU)


@pytest.fixture
def make_database(database_url: str) -> Iterator[Callable[..., Database]]:
    opened: list[Database] = []

    def make(dispatch: Callable[[Message], None] | None = None) -> Database:
        opened.append(Database(database_url, dispatch))
        return opened[-1]

    yield make
    for database in opened:
        database.close()


def count_tags(database: Database) -> int:
    with database.connection() as connection:
        return connection.scalar(text("SELECT count(*) FROM alembic_version")) or 0


def test_a_failed_write_leaves_nothing_and_sends_nothing(make_database: Callable[..., Database]) -> None:
    sent: list[Message] = []
    database = make_database(sent.append)
    before = count_tags(database)

    def write_and_fail() -> None:
        with database.write() as session:
            session.execute(text("INSERT INTO alembic_version VALUES ('lost')"))
            send_after_commit(session, MESSAGE)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_and_fail()
    assert count_tags(database) == before
    assert sent == []


def test_a_message_leaves_after_the_commit(make_database: Callable[..., Database]) -> None:
    seen: list[int] = []
    database = make_database(lambda _: seen.append(count_tags(database)))
    with database.write() as session:
        session.execute(text("INSERT INTO alembic_version VALUES ('kept')"))
        send_after_commit(session, MESSAGE)
        assert seen == []
    assert seen == [2]


def test_concurrent_writers_all_get_through(make_database: Callable[..., Database]) -> None:
    databases = [make_database(), make_database()]  # as two processes would: each with its own lock

    def write(number: int) -> None:
        with databases[number % 2].write() as session:
            session.execute(text("INSERT INTO alembic_version VALUES (:v)"), {"v": f"w{number}"})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count_tags(databases[0]) == 25


def test_times_come_back_in_utc_and_contracts_come_back_whole(make_database: Callable[..., Database]) -> None:
    from datetime import UTC, datetime, timedelta, timezone

    from app.contracts.failure import Failure, FaultKind
    from app.models.tables import ModelRow

    at = datetime(2026, 11, 22, 9, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    problem = Failure(kind=FaultKind.USER, code="MODEL_TRUNCATED", message="too short", node="w")
    database = make_database()
    with database.write() as session:
        session.add(
            ModelRow(
                id="mdl_1",
                name="n",
                filename="f",
                sha256="0",
                size_bytes=2**40,
                created_at=at,
                problem=problem,
                tags={"a": "b"},
            )
        )
    with database.read() as session:
        row = session.get_one(ModelRow, "mdl_1")
    assert row.created_at == at
    assert row.created_at.tzinfo is UTC
    assert (row.problem, row.tags, row.size_bytes, row.facts) == (problem, {"a": "b"}, 2**40, None)
