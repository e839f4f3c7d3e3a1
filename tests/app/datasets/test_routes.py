"""Datasets over the real application."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.context import Context
from app.contracts.facts import DatasetFacts, TensorSpec
from app.contracts.states import JobState
from app.jobs.tables import JobRow

Make = Callable[..., str]

PREPROCESS = {"resize": [8, 8], "scale": 0.5, "mean": [0.1], "channel_order": "bgr"}
FACTS = DatasetFacts(
    format="images",
    samples=3,
    arrays=[TensorSpec(name="x", dtype="uint8", shape=[3, 8, 8, 3])],
    has_labels=True,
    classes=["cat", "dog"],
    label_min=0,
    label_max=1,
)


def upload(client: httpx.Client, preprocess: str) -> httpx.Response:
    return client.post("/v1/datasets", files={"file": ("set.npz", b"bytes")}, data={"preprocess": preprocess})


def submit(client: httpx.Client, model: str, dataset: str) -> str:
    spec = {"model": model, "recipe": [{"method": "quantize.static"}], "data": {"calibrate": dataset}}
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    id_: str = answer.json()["id"]
    return id_


def test_preprocessing_is_kept(client: httpx.Client) -> None:
    body = upload(client, json.dumps(PREPROCESS)).json()
    kept = client.get(f"/v1/datasets/{body['id']}").json()["preprocess"]
    assert {name: kept[name] for name in PREPROCESS} == PREPROCESS


def test_a_bare_body_takes_preprocessing_from_the_query(client: httpx.Client) -> None:
    answer = client.post("/v1/datasets", content=b"bytes", params={"preprocess": '{"scale": 2}', "name": "n"})
    assert answer.json()["preprocess"]["scale"] == 2


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ("{", "/preprocess"),
        ("7", "/preprocess"),
        ({"scale": 0}, "/preprocess"),
        ({"scale": "much"}, "/preprocess/scale"),
        ({"resize": [1]}, "/preprocess/resize"),
        ({"resize": [8, "x"]}, "/preprocess/resize/1"),
        ({"layout": "chwn"}, "/preprocess/layout"),
        ({"rezise": [8, 8]}, "/preprocess/rezise"),
        ('{"scale": NaN}', "/preprocess/scale"),
        ('{"std": [1e999]}', "/preprocess/std/0"),
    ],
)
def test_bad_preprocessing_is_named(client: httpx.Client, given: Any, pointer: str) -> None:
    answer = upload(client, given if isinstance(given, str) else json.dumps(given))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert client.get("/v1/datasets").json()["data"] == []


def test_a_ready_dataset_shows_what_was_found(client: httpx.Client, make_dataset: Make) -> None:
    body = client.get(f"/v1/datasets/{make_dataset(facts=FACTS)}").json()
    found = {name: body[name] for name in ("format", "samples", "has_labels", "classes", "label_min", "label_max")}
    assert found == FACTS.model_dump(include=set(found))
    assert body["arrays"] == [{"name": "x", "dtype": "uint8", "shape": [3, 8, 8, 3]}]


def test_delete(client: httpx.Client, make_dataset: Make) -> None:
    url = f"/v1/datasets/{make_dataset()}"
    answer = client.delete(url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(url).status_code == 404
    assert client.delete(url).status_code == 404


def test_a_dataset_of_an_unfinished_job_stays(
    client: httpx.Client, context: Context, make_model: Make, make_dataset: Make
) -> None:
    dataset = make_dataset()
    job = submit(client, make_model(), dataset)
    answer = client.delete(f"/v1/datasets/{dataset}")
    assert (answer.status_code, answer.json()["code"]) == (409, "DATASET_IN_USE")
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 204
    with context.database.read() as session:
        row = session.get(JobRow, job)
        assert row is not None
        assert (row.state, row.calibrate_id) == (JobState.CANCELLED, dataset)


def test_deleting_one_of_two_leaves_the_shared_blob(client: httpx.Client, context: Context) -> None:
    first, second = upload(client, "{}").json(), upload(client, "{}").json()
    client.delete(f"/v1/datasets/{first['id']}")
    assert b"".join(context.store.read(second["sha256"])) == b"bytes"
