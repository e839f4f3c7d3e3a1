"""Jobs that are answered from identical ones."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.contracts.states import IngestState, JobState
from app.jobs import repository as jobs
from app.jobs.tables import JobRow
from worker import entries
from worker.tasks import Tasks


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch, probes: Any) -> None:
    monkeypatch.setattr(entries, "compress", probes.make_artifact)


@pytest.fixture
def first(tasks: Tasks, bench: Any) -> Callable[..., str]:
    """A job that is done, of the same versions and processor as whatever comes next; returns its id."""

    def run(**spec: Any) -> str:
        from worker.surroundings import processor, versions

        job = bench.submit(**spec)
        tasks.run_job(job)
        assert bench.find(job).state == JobState.SUCCEEDED
        with bench.database.write() as session:
            here = {"versions": versions(), "device": f"cpu {processor()}"}
            session.execute(update(JobRow).where(JobRow.id == job).values(**here))
        return job

    return run


def test_an_identical_job_gets_the_same_answer_and_says_so(tasks: Tasks, bench: Any, first: Callable[..., str]) -> None:
    model = bench.upload(state=IngestState.READY)
    done = first(model=model)
    again = bench.submit(model=model, name="another name", tags={"a": "b"}, priority=9)
    tasks.run_job(again)
    row = bench.find(again)
    assert (row.state, row.reused_job_id, row.attempt) == (JobState.SUCCEEDED, done, 1)
    assert [file.sha256 for file in bench.artifacts(again)] == [file.sha256 for file in bench.artifacts(done)]
    assert {file.id for file in bench.artifacts(again)}.isdisjoint(file.id for file in bench.artifacts(done))
    with bench.database.read() as session:
        assert [r.row for r in jobs.measurements_of(session, again)] == [
            r.row for r in jobs.measurements_of(session, done)
        ]
    assert done in row.notes[-1]
    assert [data["state"] for type_, data in bench.events(again) if type_ == "state"] == [
        "queued",
        "running",
        "succeeded",
    ]


def test_the_same_bytes_under_another_id_are_the_same_model(
    tasks: Tasks, bench: Any, first: Callable[..., str]
) -> None:
    done = first()
    again = bench.submit()
    tasks.run_job(again)
    assert bench.find(again).reused_job_id == done


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"reuse": False}, {"recipe": [{"method": "prune.magnitude", "amount": 0.6}]}, {"project": "other"}],
)
def test_what_differs_is_done(tasks: Tasks, bench: Any, first: Callable[..., str], change: dict[str, Any]) -> None:
    first()
    again = bench.submit(**change)
    tasks.run_job(again)
    assert (bench.find(again).state, bench.find(again).reused_job_id) == (JobState.SUCCEEDED, None)


def test_other_bytes_are_another_model(tasks: Tasks, bench: Any, first: Callable[..., str], tmp_path: Path) -> None:
    first()
    file = tmp_path / "net.onnx"
    file.write_bytes(b"another network")
    again = bench.submit(model=bench.upload(file, state=IngestState.READY))
    tasks.run_job(again)
    assert bench.find(again).reused_job_id is None


@pytest.mark.parametrize("here", [{"versions": {"slimline": "0"}}, {"device": "cpu of another kind"}])
def test_other_versions_and_processors_do_it_anew(
    tasks: Tasks, bench: Any, first: Callable[..., str], here: dict[str, Any]
) -> None:
    done = first()
    with bench.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == done).values(**here))
    again = bench.submit()
    tasks.run_job(again)
    assert bench.find(again).reused_job_id is None


def test_of_many_identical_jobs_one_worker_answers_all(tasks: Tasks, bench: Any, first: Callable[..., str]) -> None:
    done = first()
    many = [bench.submit() for _ in range(5)]
    threads = [threading.Thread(target=tasks.run_job, args=[job]) for job in many[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {bench.find(job).reused_job_id for job in many} == {done}
