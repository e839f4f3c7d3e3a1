"""The plans of the queries that must not grow with the number of jobs, on SQLite and on PostgreSQL."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, event, text

from app.db.database import Database
from benchmarks import scale

JOBS, WAITING = 20_000, 400
_READING = ("SELECT", "UPDATE")
# SQLite calls a scan by an index SCAN, too.
_SCAN = re.compile(r"^(SCAN (jobs|job_tags)(?! USING (COVERING )?INDEX)|.*Seq Scan on (jobs|job_tags))", re.MULTILINE)
_SORT = re.compile(r"USE TEMP B-TREE FOR ORDER BY|^\s*(->)?\s*Sort ", re.MULTILINE)
_BY_CLOCK = "clock_timestamp()"  # PostgreSQL asks it for every row: see `app.db.clock.asked_at`


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    scale.fill(opened, JOBS, WAITING)
    yield opened
    opened.close()


@contextmanager
def explaining(connection: Connection) -> Iterator[list[str]]:
    """Collects the plan of every statement that reads, as the database tells it before the statement runs."""
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    plans: list[str] = []

    def tell(_connection: object, cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.lstrip().startswith(_READING):
            cursor.execute(f"{explain} {statement}", parameters)
            lines = [str(row[-1]) for row in cursor.fetchall()]
            plans.append("\n".join([statement, *lines]))

    event.listen(connection, "before_cursor_execute", tell)
    try:
        yield plans
    finally:
        event.remove(connection, "before_cursor_execute", tell)


def reads_all_jobs(plan: str) -> bool:
    """Whether the whole table of jobs, or of their tags, is read."""
    return bool(_SCAN.search(plan))


def sorts_jobs(plan: str) -> bool:
    """Whether jobs are put in order after they were read, not those of an index."""
    return "FROM jobs" in plan and bool(_SORT.search(plan))


def test_no_operation_reads_all_jobs_or_sorts_them(database: Database) -> None:
    for name, operation in scale.operations(JOBS).items():
        with database.read(None if scale.is_for_all(name) else scale.PROJECT) as session:
            connection = session.connection()
            with explaining(connection) as plans:
                operation(session)
            session.rollback()
        assert plans, name
        assert not [plan for plan in plans if reads_all_jobs(plan)], name
        assert not [plan for plan in plans if sorts_jobs(plan)], name
        assert not [plan for plan in plans if plan.startswith("SELECT") and _BY_CLOCK in plan], name


def test_a_scan_would_be_noticed(database: Database) -> None:
    with database.read() as session, explaining(session.connection()) as plans:
        session.execute(text("SELECT id FROM jobs WHERE name = 'x' ORDER BY device"))
    assert reads_all_jobs(plans[0])
    assert sorts_jobs(plans[0])
