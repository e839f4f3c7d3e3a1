"""What people see of a training while they watch it."""

import json
from collections.abc import Callable

import pytest
import structlog
from typer.testing import CliRunner, Result

from app import cli
from app.context import Context
from app.contracts.events import Trained
from app.contracts.job_spec import JobSpec
from app.contracts.states import JobState
from app.jobs import repository
from app.jobs.queue import attempts, moves

CURVE = (
    Trained(step=1, epoch=0, updates=0, metric="top1", value=0.25),
    Trained(step=1, epoch=1, updates=8, loss=1.23456, metric="top1", value=0.5, samples_per_s=812.3),
)


@pytest.mark.parametrize(
    ("point", "line"),
    [
        (CURVE[0], "step 2, epoch 0: top1 0.25"),
        (CURVE[1], "step 2, epoch 1: loss 1.235, top1 0.5, 812 samples/s"),
        (Trained(step=0, round=3, epoch=1.5, updates=12, loss=0.1), "step 1, round 3, epoch 1.5: loss 0.1"),
        (Trained(step=0, epoch=0, updates=0), "step 1, epoch 0"),
    ],
)
def test_a_point_of_the_curve_is_a_line(point: Trained, line: str) -> None:
    assert str(point) == line


@pytest.fixture
def trained_job(context: Context, make_model: Callable[..., str]) -> str:
    """A job that told a loss curve and is over."""
    spec = JobSpec.model_validate({"model": make_model(), "recipe": [{"method": "quantize.float16"}]})
    with context.database.write() as session:
        job = repository.insert_queued(session, spec).id
        attempts.claim(session, job, 60)
        for point in CURVE:
            data = point.model_dump(mode="json", exclude={"type"})
            assert attempts.record_event(session, job, 1, point.type, data)
        moves.move(session, job, JobState.SUCCEEDED, attempt=1)
    return job


def run(served: str, *arguments: str) -> Result:
    with structlog.testing.capture_logs():  # the server's, which runs in this process, would mix with the output
        return CliRunner().invoke(cli.make_commands(), [*arguments, "--url", served], prog_name="slimline")


def test_watching_shows_the_loss_curve(served: str, trained_job: str) -> None:
    watched = run(served, "jobs", "watch", trained_job)
    assert watched.exit_code == 0
    assert watched.stderr.splitlines() == ["queued", "running", *map(str, CURVE), "succeeded"]
    assert json.loads(run(served, "jobs", "watch", trained_job, "--json").stdout)["id"] == trained_job


def test_listed_events_hold_the_loss_curve(served: str, trained_job: str) -> None:
    listed = json.loads(run(served, "jobs", "events", trained_job, "--json").stdout)
    told = [event["data"] for event in listed if event["type"] == "trained"]
    assert [Trained.model_validate(data) for data in told] == list(CURVE)
