"""The `type` of a problem document leads to its explanation."""

import httpx


def test_a_type_can_be_followed(client: httpx.Client) -> None:
    problem = client.get("/v1/jobs/job_1").json()
    explained = client.get(problem["type"]).json()
    assert explained["code"] == problem["code"] == "JOB_NOT_FOUND"
    assert explained["meaning"]
    assert explained["cure"]
    assert explained in client.get("/problems").json()["data"]


def test_an_unknown_type_is_404(client: httpx.Client) -> None:
    assert client.get("/problems/no-such").json()["code"] == "NOT_FOUND"
