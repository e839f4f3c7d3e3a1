"""Deleting over the real application: what is refused, what is gone afterwards, and what is kept. On both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from app.artifacts import service as artifacts
from app.artifacts.tables import ArtifactRow
from app.context import Context
from app.contracts.states import IngestState, JobState
from app.datasets import service as datasets
from app.db import ingest
from app.db.base import utc_now
from app.db.ids import new_id
from app.errors import Problem
from app.jobs import service as jobs
from app.jobs.queue import attempts, moves
from app.jobs.tables import JobRow
from app.models import service as models
from app.models.tables import ModelRow

Make = Callable[..., str]
Submit = Callable[..., str]


@pytest.fixture
def submit(client: httpx.Client) -> Submit:
    """Submit a job; returns its id."""

    def post(model: str, **spec: Any) -> str:
        answer = client.post("/v1/jobs", json={"model": model, "recipe": [{"method": "quantize.dynamic"}], **spec})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    return post


@pytest.fixture
def make_artifact(context: Context) -> Make:
    """Insert an artifact of a job; returns its id."""

    def make(job: str) -> str:
        row = ArtifactRow(id=new_id("art"), job_id=job, format="onnx", filename="n.onnx", sha256="a" * 64, size_bytes=1)
        with context.database.write() as session:
            session.add(row)
        return row.id

    return make


def codes(*answers: httpx.Response) -> list[tuple[int, str]]:
    return [(answer.status_code, answer.json()["code"]) for answer in answers]


def test_a_deleted_model_is_found_nowhere(client: httpx.Client, make_model: Make) -> None:
    model = make_model()
    url = f"/v1/models/{model}"
    gone = client.delete(url)
    assert (gone.status_code, gone.content) == (204, b"")
    reads = [client.get(f"{url}{part}") for part in ("", "/layers", "/content", "/content?as=onnx")]
    assert codes(*reads, client.delete(url)) == [(404, "MODEL_NOT_FOUND")] * 5
    assert client.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize(
    "names",
    [
        lambda deleted, _other: {"model": deleted},
        lambda deleted, other: {"model": other, "recipe": [{"method": "train", "distill": {"teacher": deleted}}]},
    ],
)
def test_a_new_job_cannot_name_a_deleted_model(client: httpx.Client, make_model: Make, names: Any) -> None:
    deleted, other = make_model(), make_model()
    client.delete(f"/v1/models/{deleted}")
    spec = {"recipe": [{"method": "quantize.dynamic"}], **names(deleted, other)}
    assert codes(client.post("/v1/jobs", json=spec)) == [(422, "MODEL_NOT_FOUND")]


def test_a_model_that_an_unfinished_job_reads_stays(
    client: httpx.Client, make_model: Make, make_dataset: Make, submit: Submit
) -> None:
    model, teacher = make_model(), make_model()
    recipe = [{"method": "train", "distill": {"teacher": teacher}}]
    job = submit(model, recipe=recipe, data={"train": make_dataset()})
    for each in (model, teacher):
        assert codes(client.delete(f"/v1/models/{each}")) == [(409, "MODEL_IN_USE")]
    client.post(f"/v1/jobs/{job}/cancel")
    for each in (model, teacher):
        assert client.delete(f"/v1/models/{each}").status_code == 204


def test_a_job_outlives_its_model_and_its_data(
    client: httpx.Client, make_model: Make, make_dataset: Make, make_artifact: Make, submit: Submit
) -> None:
    model, dataset = make_model(), make_dataset()
    job = submit(model, recipe=[{"method": "quantize.static"}], data={"calibrate": dataset})
    client.post(f"/v1/jobs/{job}/cancel")
    make_artifact(job)
    before = client.get(f"/v1/jobs/{job}").json()
    for url in (f"/v1/models/{model}", f"/v1/datasets/{dataset}"):
        assert client.delete(url).status_code == 204
        assert client.get(url).status_code == 404
    assert client.get(f"/v1/jobs/{job}").json() == before
    assert [found["id"] for found in client.get("/v1/jobs", params={"model": model}).json()["data"]] == [job]


def test_what_was_found_in_a_deleted_model_is_dropped(client: httpx.Client, context: Context, make_model: Make) -> None:
    model = make_model()
    client.delete(f"/v1/models/{model}")
    with context.database.read() as session:
        row = session.get_one(ModelRow, model)
        assert (row.facts, row.deleted_at is not None) == (None, True)


def test_a_model_that_is_deleted_while_it_is_checked_is_not_checked_on(
    client: httpx.Client, context: Context, make_model: Make
) -> None:
    model, waiting = make_model(IngestState.UPLOADED), make_model(IngestState.UPLOADED)
    with context.database.write() as session:
        held = ingest.claim(session, ModelRow, model, 30)
        assert held is not None
    for each in (model, waiting):
        client.delete(f"/v1/models/{each}")
    with context.database.write() as session:
        assert not ingest.renew(session, ModelRow, model, held.attempt, 30)
        assert not ingest.finish(session, ModelRow, model, held.attempt, {})
        assert ingest.claim(session, ModelRow, waiting, 30) is None
        assert ingest.find_waiting(session, ModelRow, utc_now()) == []


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING])
def test_an_unfinished_job_stays(
    client: httpx.Client, context: Context, make_model: Make, submit: Submit, state: JobState
) -> None:
    job = submit(make_model())
    with context.database.write() as session:
        if state != JobState.QUEUED:
            attempts.claim(session, job, 30)
        if state == JobState.CANCELLING:
            moves.move(session, job, JobState.CANCELLING)
    refused = client.delete(f"/v1/jobs/{job}")
    assert codes(refused) == [(409, "JOB_UNFINISHED")]
    assert "ancel" in refused.json()["detail"]
    assert client.get(f"/v1/jobs/{job}").json()["state"] == state


def test_a_job_goes_with_all_that_belongs_to_it(
    client: httpx.Client, make_model: Make, make_artifact: Make, submit: Submit
) -> None:
    model = make_model()
    job, other = submit(model, tags={"team": "a"}), submit(model, tags={"team": "a"})
    artifact, kept = make_artifact(job), make_artifact(other)
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    reads = [client.get(f"/v1/jobs/{job}{part}") for part in ("", "/events", "/comparison", "/layers")]
    assert codes(*reads, client.delete(f"/v1/jobs/{job}")) == [(404, "JOB_NOT_FOUND")] * 5
    assert codes(client.get(f"/v1/artifacts/{artifact}")) == [(404, "ARTIFACT_NOT_FOUND")]
    assert client.get(f"/v1/artifacts/{kept}").status_code == 200
    assert [found["id"] for found in client.get("/v1/jobs", params={"tag": "team"}).json()["data"]] == [other]


def test_an_artifact_goes_and_its_job_says_so(
    client: httpx.Client, context: Context, make_model: Make, make_artifact: Make, submit: Submit
) -> None:
    job = submit(make_model())
    gone, kept = make_artifact(job), make_artifact(job)
    with context.database.write() as session:
        attempts.claim(session, job, 30)
        moves.move(session, job, JobState.SUCCEEDED, values={"fingerprint": "f" * 64})
    before = client.get(f"/v1/jobs/{job}")
    assert client.delete(f"/v1/artifacts/{gone}").status_code == 204
    url = f"/v1/artifacts/{gone}"
    assert codes(client.get(url), client.get(f"{url}/content"), client.delete(url)) == [(404, "ARTIFACT_NOT_FOUND")] * 3
    after = client.get(f"/v1/jobs/{job}", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert [artifact["id"] for artifact in after.json()["artifacts"]] == [kept]
    with context.database.read() as session:
        assert session.get_one(JobRow, job).fingerprint is None  # it has not all that an identical job would get


def test_of_another_project_nothing_can_be_deleted(
    client: httpx.Client,
    context: Context,
    make_model: Make,
    make_dataset: Make,
    make_artifact: Make,
    submit: Submit,
) -> None:
    job = submit(make_model())
    client.post(f"/v1/jobs/{job}/cancel")
    ids = {models: make_model(), datasets: make_dataset(), artifacts: make_artifact(job), jobs: job}
    for service, id_ in ids.items():
        with pytest.raises(Problem) as refused, context.database.write("other") as session:
            service.delete(session, id_)
        assert refused.value.status == HTTPStatus.NOT_FOUND
    for service, id_ in ids.items():
        with context.database.write() as session:
            service.delete(session, id_)


def test_deleting_and_submitting_at_once_leaves_no_job_that_hangs(client: httpx.Client, make_model: Make) -> None:
    """Whoever comes first wins: the job is refused, or the deletion is, or the job will fail when it is claimed."""
    for _ in range(10):
        model = make_model()
        spec = {"model": model, "recipe": [{"method": "quantize.dynamic"}]}
        with ThreadPoolExecutor(2) as threads:
            submitted = threads.submit(client.post, "/v1/jobs", json=spec)
            deleted = threads.submit(client.delete, f"/v1/models/{model}")
        outcome = submitted.result().status_code, deleted.result().status_code
        assert outcome in {(202, 409), (422, 204), (202, 204)}
