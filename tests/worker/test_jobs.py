"""Jobs from claim to report: real database, store, broker and children; the engine is a probe that does as told."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.contracts.events import Log
from app.contracts.failure import FaultKind
from app.contracts.states import IngestState, JobState
from app.jobs import repository as jobs
from app.jobs.queue import attempts, moves
from worker import entries
from worker.forkserver import ForkServer
from worker.reporter import AttemptLostError, Reporter
from worker.tasks import HandedBackError, Tasks

Engine = Callable[..., None]
Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, probes: Any) -> Engine:
    """Chooses the probe that takes the engine's place at an entry."""
    return lambda name, entry="compress": monkeypatch.setattr(entries, entry, getattr(probes, name))


def test_a_job_succeeds(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("make_artifact")
    job = bench.submit()
    tasks.run_job(job)
    row = bench.find(job)
    assert (row.state, row.attempt, row.progress.fraction) == (JobState.SUCCEEDED, 1, 1)
    assert (row.device, row.versions, row.engine_s, row.lease_until) == ("cpu", {"torch": "2"}, 0.5, None)
    [artifact] = bench.artifacts(job)
    with bench.database.read() as session:
        rows = jobs.measurements_of(session, job)
    assert (artifact.filename, artifact.size_bytes) == ("net-slim.onnx", 9)
    assert [(row.position, row.role) for row in rows] == [(0, "original"), (1, "step"), (2, "final")]
    types = [type_ for type_, _ in bench.events(job)]
    assert types[:2] == ["state", "state"]
    assert types[-1] == "state"
    assert types.count("measured") == 3
    assert 1 <= types.count("progress") < 10  # of 50 in a moment


def test_the_last_progress_before_the_end_is_stored(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("make_artifact")
    job = bench.submit()
    tasks.run_job(job)
    assert [data["fraction"] for type_, data in bench.events(job) if type_ == "progress"][-1] == 0.98


def test_a_second_message_changes_nothing(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("make_artifact")
    job = bench.submit()
    tasks.run_job(job)
    before = bench.find(job).revision
    tasks.run_job(job)
    tasks.run_job("job_unheard_of")
    assert bench.find(job).revision == before


def test_a_defect_fails_the_job_and_says_little(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("divide")
    job = bench.submit()
    tasks.run_job(job)
    row = bench.find(job)
    assert (row.state, row.failure.code, row.failure.kind) == (JobState.FAILED, "ENGINE_DEFECT", FaultKind.OURS)
    assert bench.workspaces() == []


def test_a_missing_blob_fails_the_job(tasks: Tasks, bench: Any) -> None:
    job = bench.submit(bench.upload(state=IngestState.READY, sha256="0" * 64))
    tasks.run_job(job)
    assert bench.find(job).failure.code == "BLOB_MISSING"


def test_an_artifact_that_is_not_the_measured_one_is_refused(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("swap_artifact")
    job = bench.submit()
    tasks.run_job(job)
    assert bench.find(job).failure.code == "ENGINE_DEFECT"
    assert bench.artifacts(job) == []


def test_a_crash_is_retried_until_the_attempts_are_used_up(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("crash")
    job = bench.submit()
    seen = []
    for _ in range(bench.settings.max_attempts):
        tasks.run_job(job)
        seen.append(bench.find(job).state)
    assert seen == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    row = bench.find(job)
    assert (row.failure.code, row.attempt) == ("WORKER_CRASHED", 3)
    told = [data["message"] for type_, data in bench.events(job) if type_ == "log"]
    assert told == ["queued once more: the process that did the work was ended by SIGSEGV"] * 2


def test_a_time_limit(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("hang")
    job = bench.submit(limits={"run_s": 0.3})
    tasks.run_job(job)
    assert bench.find(job).failure.code == "RUN_TIME_EXCEEDED"


def test_cancel(tasks: Tasks, engine: Engine, bench: Any, until: Until) -> None:
    engine("hang")
    job = bench.submit()
    thread = threading.Thread(target=tasks.run_job, args=[job])
    thread.start()
    until(lambda: bench.find(job).state == JobState.RUNNING)
    bench.cancel(job)
    thread.join(10)
    assert not thread.is_alive()
    assert bench.find(job).state == JobState.CANCELLED
    assert bench.workspaces() == []


def test_a_stopping_worker_hands_back_and_the_next_resumes(
    tasks: Tasks, engine: Engine, heavy_server: ForkServer, bench: Any, until: Until
) -> None:
    engine("checkpoint_and_hang")
    job = bench.submit()
    raised = []

    def run() -> None:
        try:
            tasks.run_job(job)
        except HandedBackError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: bench.find(job).progress is not None)
    tasks.stop()
    thread.join(10)
    assert len(raised) == 1
    row = bench.find(job)
    assert (row.state, row.failed_starts, row.checkpoint_step) == (JobState.QUEUED, 0, 0)
    with pytest.raises(HandedBackError):
        tasks.run_job(job)
    other = Tasks(bench.settings, heavy_server)
    other.run_job(job)
    other.close()
    assert bench.find(job).state == JobState.SUCCEEDED
    logs = [data["message"] for type_, data in bench.events(job) if type_ == "log"]
    assert logs == ["resumed after 0", "after step 0"]


def test_a_late_writer_loses(tasks: Tasks, reporter: Reporter, engine: Engine, bench: Any) -> None:
    job = bench.submit()
    late = reporter.claim_job(job)
    with bench.database.write() as session:
        moves.move(session, job, JobState.QUEUED, attempt=1)
    engine("make_artifact")
    tasks.run_job(job)
    done = bench.find(job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    for write in (
        lambda: late.record(Log(message="late")),
        lambda: late.save_checkpoint(0, "0" * 64),
        late.cancel,
        late.release,
    ):
        with pytest.raises(AttemptLostError):
            write()
    assert bench.find(job).revision == done.revision


def test_a_worker_whose_row_was_taken_stops_and_writes_nothing(
    tasks: Tasks, engine: Engine, bench: Any, until: Until
) -> None:
    engine("hang")
    job = bench.submit()
    thread = threading.Thread(target=tasks.run_job, args=[job])
    thread.start()
    until(lambda: bench.find(job).state == JobState.RUNNING)
    with bench.database.write() as session:
        moves.move(session, job, JobState.QUEUED, attempt=1)
        attempts.claim(session, job, 60)
    thread.join(10)
    assert not thread.is_alive()
    row = bench.find(job)
    assert (row.state, row.attempt) == (JobState.RUNNING, 2)


def test_a_job_waits_for_its_inputs_and_is_sent_when_they_are_ready(
    tasks: Tasks, engine: Engine, bench: Any, until: Until
) -> None:
    engine("find_facts", "ingest_model")
    model = bench.upload()
    job = bench.submit(model)
    tasks.run_job(job)
    assert bench.find(job).state == JobState.QUEUED
    assert bench.count_messages() == 0
    tasks.ingest_model(model)
    row = bench.find(model)
    assert (row.state, row.facts.opset, row.graph_size_bytes) == (IngestState.READY, 18, 5)
    until(lambda: bench.count_messages() == 1)


def test_a_job_fails_with_the_problem_of_a_rejected_input(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("refuse", "ingest_model")
    model = bench.upload()
    job = bench.submit(model)
    tasks.ingest_model(model)
    assert (bench.find(model).state, bench.find(model).problem.code) == (IngestState.REJECTED, "MODEL_TRUNCATED")
    assert (bench.find(job).state, bench.find(job).failure.code) == (JobState.FAILED, "MODEL_TRUNCATED")


def test_a_crash_while_checking_is_tried_again(tasks: Tasks, engine: Engine, bench: Any) -> None:
    engine("crash", "ingest_model")
    model = bench.upload()
    seen = []
    for _ in range(bench.settings.max_attempts):
        tasks.ingest_model(model)
        seen.append(bench.find(model).state)
    assert seen == [IngestState.UPLOADED, IngestState.UPLOADED, IngestState.REJECTED]
