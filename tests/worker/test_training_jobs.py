"""Jobs that train: what they leave on their way, what a retry finds of it, and the other models they read."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.contracts.events import Log, Trained
from app.contracts.failure import SlimlineError
from app.contracts.messages import Queue
from app.contracts.states import IngestState, JobState
from app.settings import Settings
from app.storage import open_store
from worker import entries
from worker.reporter import Reporter
from worker.reporter.retries import LOST_MOST
from worker.tasks import Tasks

Engine = Callable[..., None]
Until = Callable[[Callable[[], object]], None]
PRUNE = {"method": "prune.magnitude", "amount": 0.5}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, probes: Any) -> Engine:
    """Chooses the probe that takes the engine's place at an entry."""
    return lambda name, entry="compress": monkeypatch.setattr(entries, entry, getattr(probes, name))


@pytest.fixture
def is_stored(settings: Settings) -> Callable[[str], bool]:
    """Whether there is a blob of this digest."""

    def look(sha256: str) -> bool:
        try:
            return open_store(settings).size(sha256) >= 0
        except SlimlineError:
            return False

    return look


@pytest.fixture
def data(bench: Any, tmp_path: Path) -> dict[str, str]:
    """What a job that trains must name."""
    file = tmp_path / "set.npz"
    file.write_bytes(b"samples")
    return {"train": bench.upload(file, state=IngestState.READY)}


def logs(bench: Any, job: str) -> list[str]:
    return [data["message"] for type_, data in bench.events(job) if type_ == "log"]


def test_crashes_that_get_further_each_time_do_not_fail_a_job(
    tasks: Tasks, engine: Engine, bench: Any, is_stored: Callable[[str], bool]
) -> None:
    engine("train_and_crash")
    job = bench.submit()
    left = []
    for _ in range(4):
        tasks.run_job(job)
        row = bench.find(job)
        assert (row.state, row.failed_starts, row.partial_step) == (JobState.QUEUED, 1, 0)
        left.append(row.partial_sha256)
        assert [is_stored(sha256) for sha256 in left] == [False] * (len(left) - 1) + [True]
    tasks.run_job(job)
    row = bench.find(job)
    assert (row.state, row.attempt, row.partial_step, row.partial_sha256) == (JobState.SUCCEEDED, 5, None, None)
    assert not any(map(is_stored, left))
    found = [message for message in logs(bench, job) if message.startswith("found")]
    assert found == ["found nothing", *(f"found {epochs} epochs" for epochs in range(1, 5))]
    curve = [data for type_, data in bench.events(job) if type_ == "trained"]
    assert [(point["epoch"], point["metric"], point["value"]) for point in curve] == [
        (epoch, "top1", 0.5) for epoch in range(1, 5)
    ]


def test_crashes_that_get_no_further_fail_a_job(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("leave_the_same_and_crash")
    job = bench.submit()
    seen = []
    for _ in range(bench.settings.max_attempts):
        tasks.run_job(job)
        seen.append(bench.find(job).state)
    assert seen == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]


def test_the_sweep_counts_lost_workers_from_the_last_checkpoint(reporter: Reporter, bench: Any) -> None:
    job = bench.submit()
    for attempt in range(1, 3 * bench.settings.max_attempts):
        reporter.claim_job(job).save_partial_checkpoint(0, f"{attempt:064}")
        bench.expire(job)
        reporter.sweep(Queue)
        assert bench.find(job).state == JobState.QUEUED
    for _ in range(LOST_MOST - 1):
        reporter.claim_job(job)
        bench.expire(job)
        reporter.sweep(Queue)
    assert bench.find(job).failure.code == "ATTEMPTS_EXHAUSTED"


def test_a_lost_partial_checkpoint_costs_the_step_and_no_more(
    tasks: Tasks, engine: Engine, bench: Any, settings: Settings
) -> None:
    engine("leave_the_same_and_crash")
    job = bench.submit()
    tasks.run_job(job)
    open_store(settings).delete(bench.find(job).partial_sha256)
    engine("train_and_crash")
    tasks.run_job(job)
    assert bench.find(job).state == JobState.QUEUED
    told = logs(bench, job)
    assert "step 1 begins anew: the stored file" in told[1]
    assert told[2] == "found nothing"


def test_what_is_gone_or_of_no_use_is_not_kept_and_a_cancelled_job_needs_nothing(
    tasks: Tasks, engine: Engine, bench: Any, until: Until
) -> None:
    engine("leave_partly_and_hang")
    job = bench.submit(recipe=[PRUNE, PRUNE])
    thread = threading.Thread(target=tasks.run_job, args=[job])
    thread.start()
    until(lambda: bench.find(job).progress is not None)
    left = bench.find(job)
    assert left.partial_step == 0
    bench.cancel(job)
    thread.join(10)
    row = bench.find(job)
    assert (row.state, row.partial_step, row.partial_sha256) == (JobState.CANCELLED, None, None)


def test_a_blob_that_another_job_has_too_stays(
    tasks: Tasks, engine: Engine, bench: Any, is_stored: Callable[[str], bool]
) -> None:
    engine("leave_the_same_and_crash")
    first, second = bench.submit(), bench.submit(project="another")  # projects take turns
    tasks.run_job(first)
    tasks.run_job(second)
    shared = bench.find(first).partial_sha256
    assert bench.find(second).partial_sha256 == shared
    engine("leave_partly_and_finish")
    tasks.run_job(first)
    assert is_stored(shared)
    tasks.run_job(second)
    assert not is_stored(shared)


def test_graphs_of_steps_that_teach_are_there_after_a_retry(
    tasks: Tasks, engine: Engine, bench: Any, data: dict[str, str]
) -> None:
    engine("checkpoint_three_steps_and_crash")
    teacher = bench.upload(state=IngestState.READY)
    distill = {"method": "train", "distill": {"teacher": 1}}
    other = {"method": "train", "distill": {"teacher": teacher}}
    job = bench.submit(recipe=[PRUNE, PRUNE, PRUNE, distill, other], data=data)
    tasks.run_job(job)
    tasks.run_job(job)
    assert bench.find(job).state == JobState.SUCCEEDED
    told = logs(bench, job)
    assert told[1:3] == ["2 {1: 'after step 1'}", str({teacher: "a network"})]


def test_a_job_waits_for_its_teacher(
    tasks: Tasks, engine: Engine, bench: Any, until: Until, data: dict[str, str]
) -> None:
    engine("find_facts", "ingest_model")
    teacher = bench.upload()
    job = bench.submit(recipe=[{"method": "train", "distill": {"teacher": teacher}}], data=data)
    tasks.run_job(job)
    assert (bench.find(job).state, bench.count_messages()) == (JobState.QUEUED, 0)
    tasks.ingest_model(teacher)
    until(lambda: bench.count_messages() == 1)


def test_a_job_fails_with_the_problem_of_its_student(
    tasks: Tasks, engine: Engine, bench: Any, data: dict[str, str]
) -> None:
    engine("refuse", "ingest_model")
    student = bench.upload()
    job = bench.submit(recipe=[{"method": "train", "distill": {"student": {"model": student}}}], data=data)
    tasks.ingest_model(student)
    assert (bench.find(job).state, bench.find(job).failure.code) == (JobState.FAILED, "MODEL_TRUNCATED")


def test_a_loss_curve_goes_on_where_other_events_end(settings: Settings, bench: Any) -> None:
    few = settings.model_copy(update={"events_per_job": 100})
    reporter = Reporter(few)
    job = bench.submit()
    attempt = reporter.claim_job(job)
    for number in range(150):
        attempt.record(Log(message=str(number)))
    for epoch in range(100):
        attempt.record(Trained(step=0, epoch=epoch, updates=epoch))
    reporter.close()
    types = [type_ for type_, _ in bench.events(job)]
    assert types.count("log") < 100
    assert 40 < types.count("trained") < 100
