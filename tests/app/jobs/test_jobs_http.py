"""Jobs over HTTP: what API.md promises, and what bad input gets."""

import csv
import io
from collections.abc import Callable

import httpx
import pytest

from app.context import Context
from app.contracts.events import Progress
from app.contracts.failure import Failure, FaultKind
from app.contracts.measurement import Accuracy, Latency, Measurement
from app.contracts.states import IngestState, JobState
from app.jobs import repository
from app.jobs.queue import attempts, moves

PRUNE = {"method": "prune.magnitude", "amount": 0.5}
UNKNOWN = "job_00000000000000000000000000"
NO_MODEL = "mdl_" + "0" * 26


def train(**distill: object) -> dict[str, object]:
    return {"method": "train", "distill": distill}


@pytest.fixture
def post(client: httpx.Client, make_model: Callable[..., str]) -> Callable[..., httpx.Response]:
    """Post a job on a ready model."""

    def send(**fields: object) -> httpx.Response:
        return client.post("/v1/jobs", json={"model": make_model(), "recipe": [PRUNE], **fields})

    return send


def finish(context: Context, job_id: str) -> None:
    """Have the job claimed, measured and succeed, as a worker would."""
    latency = Latency(p50=2.0, p90=3.0, batch=1, threads=1, device="cpu", runs=9)
    accuracy = Accuracy(metric="top1", value=0.9, n=100, ci_low=0.82, ci_high=0.94)
    original = Measurement(size_bytes=100, parameters=10, nonzero=10, latency_ms=latency, accuracy=accuracy)
    final = original.model_copy(update={"size_bytes": 25, "latency_ms": latency.model_copy(update={"p50": 1.0})})
    with context.database.write() as session:
        row = attempts.claim(session, job_id, 60)
        assert row is not None
        for position, (role, method, measured) in enumerate(
            [("original", None, original), ("step", "prune.magnitude", final), ("final", None, final)]
        ):
            repository.put_measurement(session, repository.measurement_row(job_id, position, role, method, measured))
        moves.move(session, job_id, JobState.SUCCEEDED, attempt=row.attempt)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["type"].startswith("/problems/")
    assert "Traceback" not in response.text
    return dict(body)


def test_a_job_is_accepted_with_its_place(post: Callable[..., httpx.Response], client: httpx.Client) -> None:
    response = post(tags={"team": "vision"}, name="first")
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (job["state"], job["name"], job["tags"]) == ("queued", "first", {"team": "vision"})
    assert job["progress"]["queue_position"] == 0
    assert job["spec"]["recipe"][0] == {
        **PRUNE,
        "scope": "layer",
        "ratios": {},
        "samples": 512,
        "restore": True,
        "schedule": None,
        "include": [],
        "exclude": [],
    }
    second = post().json()
    assert second["progress"]["queue_position"] == 1
    listed = client.get("/v1/jobs", params={"tag": "team=vision"}).json()
    assert [row["id"] for row in listed["data"]] == [job["id"]]


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"recipe": [{"method": "no.such"}]}, "INVALID_REQUEST", "/recipe/0"),
        ({"recipe": []}, "INVALID_REQUEST", "/recipe"),
        ({"recipe": [{**PRUNE, "amount": 1.5}]}, "INVALID_REQUEST", "/recipe/0/amount"),
        ({"recipe": [{**PRUNE, "amuont": 0.5}]}, "INVALID_REQUEST", "/recipe/0/amuont"),
        ({"recipe": [{"method": "prune.magnitude"}]}, "INVALID_REQUEST", "/recipe/0/amount"),
        (
            {"recipe": [PRUNE, {"method": "quantize.static", "weights": {"bits": 3}}]},
            "INVALID_REQUEST",
            "/recipe/1/weights/bits",
        ),
        ({"targets": {"max_accuracy_drop": 0.1}}, "INVALID_REQUEST", ""),
        ({"model": "mdl_1"}, "INVALID_REQUEST", "/model"),
        ({"model": NO_MODEL}, "MODEL_NOT_FOUND", "/model"),
        ({"recipe": [PRUNE, train(teacher="/etc/passwd")]}, "INVALID_REQUEST", "/recipe/1/distill/teacher"),
        ({"recipe": [PRUNE, train(teacher=1)]}, "INVALID_REQUEST", "/recipe/1/distill/teacher"),
        ({"recipe": [train(student={"model": "a.onnx"})]}, "INVALID_REQUEST", "/recipe/0/distill/student/model"),
        ({"recipe": [PRUNE, train(teacher=NO_MODEL)]}, "MODEL_NOT_FOUND", "/recipe/1/distill/teacher"),
        ({"recipe": [train(student={"model": NO_MODEL})]}, "MODEL_NOT_FOUND", "/recipe/0/distill/student/model"),
        ({"data": {"evaluate": "dst_" + "0" * 26}}, "DATASET_NOT_FOUND", "/data/evaluate"),
        ({"limits": {"run_s": -1}}, "INVALID_REQUEST", "/limits/run_s"),
        ({"surprise": 1}, "INVALID_REQUEST", "/surprise"),
        ({"name": "a\0b"}, "INVALID_REQUEST", "/name"),
        ({"tags": {"team": "a\x1b[2J"}}, "INVALID_REQUEST", "/tags/team"),
        ({"recipe": [{**PRUNE, "include": ["x" * 501]}]}, "INVALID_REQUEST", "/recipe/0/include/0"),
    ],
)
def test_a_bad_field_is_pointed_at(
    post: Callable[..., httpx.Response], client: httpx.Client, change: dict[str, object], code: str, pointer: str
) -> None:
    body = problem(post(**change), 422, code)
    assert [field["pointer"] for field in body["errors"]] == [pointer]  # type: ignore[attr-defined]
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_rejected_model_is_refused_with_its_reason(client: httpx.Client, make_model: Callable[..., str]) -> None:
    failure = Failure(kind=FaultKind.USER, code="MODEL_TRUNCATED", message="the file ends in mid-tensor")
    model = make_model(IngestState.REJECTED, problem=failure)
    body = problem(client.post("/v1/jobs", json={"model": model, "recipe": [PRUNE]}), 422, "MODEL_REJECTED")
    assert "ends in mid-tensor" in str(body["detail"])


def test_a_rejected_teacher_is_refused_as_a_rejected_model_is(
    post: Callable[..., httpx.Response], make_model: Callable[..., str]
) -> None:
    failure = Failure(kind=FaultKind.USER, code="MODEL_TRUNCATED", message="the file ends in mid-tensor")
    teacher = make_model(IngestState.REJECTED, problem=failure)
    body = problem(post(recipe=[train(teacher=teacher)]), 422, "MODEL_REJECTED")
    assert body["errors"][0]["pointer"] == "/recipe/0/distill/teacher"  # type: ignore[index]
    assert "ends in mid-tensor" in str(body["detail"])


def test_what_other_models_a_job_read_is_known(
    post: Callable[..., httpx.Response],
    client: httpx.Client,
    context: Context,
    make_model: Callable[..., str],
    make_dataset: Callable[..., str],
) -> None:
    teacher, data = make_model(sha256="2" * 64), make_dataset()
    own = post(recipe=[train(teacher=teacher)], data={"train": data}).headers["location"]
    told = client.get(own).json()["reproduce"]
    assert told["other_models_sha256"] == {teacher: "2" * 64}
    assert (told["model_sha256"], told["data_sha256"]) == ("0" * 64, {"train": "1" * 64})
    with context.database.read() as session:
        assert repository.is_in_use(session, teacher)
        assert not repository.is_in_use(session, make_model())
    client.post(f"{own}/cancel")
    with context.database.read() as session:
        assert not repository.is_in_use(session, teacher)


def test_what_is_not_json_or_too_long_is_refused(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    problem(client.post("/v1/jobs", content=b"{", headers=headers), 400, "BODY_NOT_JSON")
    for text in (b"\xff", b"[" * 200_000):
        problem(client.post("/v1/jobs", content=text, headers=headers), 400, "BODY_NOT_JSON")
    problem(client.post("/v1/jobs", content=b"{}"), 415, "WRONG_MEDIA_TYPE")
    problem(client.post("/v1/jobs", content=b" " * 2**21, headers=headers), 413, "BODY_TOO_LARGE")
    chunks = (b" " * 2**16 for _ in range(40))
    problem(client.post("/v1/jobs", content=chunks, headers=headers), 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("path", ["", "/events", "/comparison", "/layers"])
@pytest.mark.parametrize("job_id", [UNKNOWN, "job_1", "%F0%9F%A6%84"])
def test_an_unknown_job_is_404(client: httpx.Client, path: str, job_id: str) -> None:
    problem(client.get(f"/v1/jobs/{job_id}{path}"), 404, "JOB_NOT_FOUND")


def test_lists_are_paged(post: Callable[..., httpx.Response], client: httpx.Client) -> None:
    made = [post().json()["id"] for _ in range(3)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    assert first["has_more"]
    rest = client.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    assert [row["id"] for row in first["data"] + rest["data"]] == made[::-1]
    assert (rest["has_more"], rest["next"]) == (False, None)
    problem(client.get("/v1/jobs", params={"limit": 201}), 422, "INVALID_REQUEST")


def test_what_a_job_read_stays_known_when_its_data_is_deleted(
    post: Callable[..., httpx.Response], client: httpx.Client, make_dataset: Callable[..., str]
) -> None:
    dataset = make_dataset()
    own = post(data={"evaluate": dataset}).headers["location"]
    problem(client.delete(f"/v1/datasets/{dataset}"), 409, "DATASET_IN_USE")
    client.post(f"{own}/cancel")
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert client.get(own).json()["reproduce"]["data_sha256"] == {"evaluate": "1" * 64}


def test_an_unchanged_job_is_304_until_it_changes(
    post: Callable[..., httpx.Response], client: httpx.Client, context: Context
) -> None:
    own = post().headers["location"]
    etag = client.get(own).headers["etag"]
    same = client.get(own, headers={"if-none-match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    with context.database.write() as session:
        attempts.claim(session, own.rpartition("/")[2], 60)
    changed = client.get(own, headers={"if-none-match": etag})
    assert (changed.status_code, changed.json()["state"]) == (200, "running")
    running = changed.headers["etag"]
    assert client.get(own, headers={"if-none-match": f'"x", W/{running}'}).status_code == 304


def test_waiting_ends_with_the_job_or_with_the_time(
    post: Callable[..., httpx.Response], client: httpx.Client, context: Context
) -> None:
    import threading

    own = post().headers["location"]
    assert client.get(own, params={"wait": 0.2}).json()["state"] == "queued"
    timer = threading.Timer(0.2, finish, (context, own.rpartition("/")[2]))
    timer.start()
    assert client.get(own, headers={"prefer": "wait=30"}).json()["state"] == "succeeded"
    timer.join()
    problem(client.get(own, params={"wait": 61}), 422, "INVALID_REQUEST")


def test_cancelling(post: Callable[..., httpx.Response], client: httpx.Client, context: Context) -> None:
    queued, running = post().headers["location"], post().headers["location"]
    answer = client.post(f"{queued}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    problem(client.post(f"{queued}/cancel"), 409, "JOB_FINISHED")
    with context.database.write() as session:
        attempts.claim(session, running.rpartition("/")[2], 60)
    for _ in range(2):
        answer = client.post(f"{running}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    problem(client.post(f"/v1/jobs/{UNKNOWN}/cancel"), 404, "JOB_NOT_FOUND")


def test_the_comparison_in_three_formats(
    post: Callable[..., httpx.Response], client: httpx.Client, context: Context
) -> None:
    own = post().headers["location"]
    assert client.get(f"{own}/comparison").json()["original"] is None
    finish(context, own.rpartition("/")[2])
    as_json = client.get(f"{own}/comparison").json()
    assert as_json == client.get(own).json()["comparison"]
    assert (as_json["ratios"]["size"], as_json["ratios"]["latency"]) == (0.25, 0.5)
    assert as_json["ratios"]["accuracy_drop"] == 0
    as_csv = client.get(f"{own}/comparison", params={"format": "csv"})
    assert as_csv.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert [(row["stage"], row["size_bytes"]) for row in rows] == [
        ("original", "100"),
        ("prune.magnitude", "25"),
        ("final", "25"),
    ]
    assert "| size_bytes | 100 | 25 | 25 |" in client.get(f"{own}/comparison", params={"format": "markdown"}).text
    problem(client.get(f"{own}/comparison", params={"format": "xml"}), 422, "INVALID_REQUEST")


def test_events_as_a_list_and_as_a_stream_that_resumes(
    post: Callable[..., httpx.Response], client: httpx.Client, context: Context
) -> None:
    own = post().headers["location"]
    job_id = own.rpartition("/")[2]
    finish(context, job_id)
    listed = client.get(f"{own}/events").json()["data"]
    assert [event["data"]["state"] for event in listed] == ["queued", "running", "succeeded"]
    page = client.get(f"{own}/events", params={"limit": 1}).json()
    assert page["has_more"]
    assert client.get(f"{own}/events", params={"after": page["next"]}).json()["data"] == listed[1:]

    def read(**headers: str) -> list[str]:
        streamed = client.get(f"{own}/events", headers={"accept": "text/event-stream", **headers})
        assert streamed.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("id: ") for line in streamed.text.splitlines() if line.startswith("id: ")]

    assert read() == [event["id"] for event in listed]
    assert read(**{"last-event-id": listed[1]["id"]}) == [listed[2]["id"]]
    problem(client.get(f"{own}/events", headers={"last-event-id": "evt_1"}), 404, "EVENT_NOT_FOUND")


def test_a_stream_follows_a_running_job(
    post: Callable[..., httpx.Response], client: httpx.Client, context: Context
) -> None:
    import threading

    own = post().headers["location"]
    job_id = own.rpartition("/")[2]

    def work() -> None:
        with context.database.write() as session:
            attempts.claim(session, job_id, 60)
        for fraction in (0.1, 0.2, 0.3):
            event = Progress(fraction=fraction, step=1, steps=1, phase="compress")
            with context.database.write() as session:
                attempts.record_event(session, job_id, 1, "progress", event.model_dump(mode="json"))
        with context.database.write() as session:
            moves.move(session, job_id, JobState.FAILED, attempt=1)

    timer = threading.Timer(0.2, work)
    timer.start()
    streamed = client.get(f"{own}/events", headers={"accept": "text/event-stream"})
    timer.join()
    types = [line.removeprefix("event: ") for line in streamed.text.splitlines() if line.startswith("event: ")]
    assert types == ["state", "state", "progress", "progress", "progress", "state"]
