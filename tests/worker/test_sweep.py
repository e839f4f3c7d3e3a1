"""The sweep against real rows and a real broker."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from app.contracts.events import Log
from app.contracts.messages import Queue
from app.contracts.states import JobState
from app.db.migrate import upgrade
from worker.reporter import Reporter
from worker.reporter.retries import LOST_MOST

Until = Callable[[Callable[[], object]], None]
OTHERS = "pid <> pg_backend_pid() AND datname = current_database()"


def test_sweep_takes_a_job_back_from_a_dead_worker(reporter: Reporter, bench: Any, until: Until) -> None:
    job = bench.submit()
    for attempt in range(1, LOST_MOST + 1):
        assert reporter.claim_job(job).claim.attempt == attempt
        reporter.sweep(Queue)
        assert bench.find(job).state == JobState.RUNNING  # the lease still runs
        bench.expire(job)
        reporter.sweep(Queue)
    row = bench.find(job)
    assert (row.state, row.failure.code) == (JobState.FAILED, "ATTEMPTS_EXHAUSTED")
    until(lambda: bench.count_messages() == 1 + LOST_MOST - 1)  # the first, and one per retry


def test_sweep_sends_lost_messages_again_but_only_to_a_drained_queue(
    reporter: Reporter, bench: Any, until: Until
) -> None:
    bench.submit()
    time.sleep(bench.settings.sweep_s)
    reporter.sweep([])
    until(lambda: bench.count_messages() == 1)
    reporter.sweep(Queue)
    until(lambda: bench.count_messages() == 2)


def test_sweep_sends_lost_checks_again(reporter: Reporter, bench: Any, until: Until) -> None:
    bench.upload()
    time.sleep(bench.settings.sweep_s)
    reporter.sweep(Queue)
    until(lambda: bench.count_messages(Queue.INGEST) == 1)


def test_sweep_fails_what_waited_too_long(reporter: Reporter, bench: Any) -> None:
    job = bench.submit(limits={"queue_s": 0.01})
    time.sleep(bench.settings.sweep_s)
    reporter.sweep([])
    assert bench.find(job).failure.code == "QUEUE_TIME_EXCEEDED"


def test_sweep_ends_a_cancelled_job_of_a_dead_worker(reporter: Reporter, bench: Any) -> None:
    job = bench.submit()
    reporter.claim_job(job)
    bench.cancel(job)
    bench.expire(job)
    reporter.sweep(Queue)
    assert bench.find(job).state == JobState.CANCELLED


class TestOnPostgres:
    """SQLite has no connection to cut."""

    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        upgrade(postgres_url)
        return postgres_url

    def test_a_cut_connection_does_not_lose_a_report(self, reporter: Reporter, bench: Any) -> None:
        job = bench.submit()
        attempt = reporter.claim_job(job)
        assert attempt
        with bench.database.write() as session:
            session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"))
        attempt.record(Log(message="still here"))
        assert bench.events(job)[-1] == ("log", {"level": "info", "message": "still here"})
