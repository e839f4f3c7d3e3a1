"""How often a key may ask: counted across processes, told in every answer, and never a reason to fail."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.keys.keyring import OPEN_FOR_S
from app.main import create_app
from app.settings import Settings

Bearer = Callable[..., dict[str, str]]
PATH = "/v1/methods"
AWAY = "redis://127.0.0.1:9/0"  # the discard port: nothing listens there


@pytest.fixture(params=["valkey", "memory"])
def server(request: pytest.FixtureRequest, settings: Settings) -> FastAPI:
    """The server, once with a broker that can count and once with one that cannot."""
    changes = {} if request.param == "valkey" else {"broker_url": "memory://"}
    return create_app(Settings(**{**settings.model_dump(), **changes, "requests_per_minute": 5}))


def told(answer: httpx.Response) -> tuple[int, int, int]:
    """Quota, what is left, and when it is whole again."""
    policy = re.fullmatch(r'"default";q=(\d+);w=60', answer.headers["ratelimit-policy"])
    left = re.fullmatch(r'"default";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert policy
    assert left
    return int(policy[1]), int(left[1]), int(left[2])


def test_every_answer_tells_what_is_left(client: httpx.Client, bearer: Bearer) -> None:
    headers = bearer("read")
    answers = [
        client.get(PATH, headers=headers),
        client.get("/v1/jobs/job_1", headers=headers),
        client.post("/v1/jobs", headers=headers),
        client.get("/v1/nothing", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 403, 404]
    assert [told(answer)[:2] for answer in answers] == [(5, 4), (5, 3), (5, 2), (5, 1)]
    assert all(1 <= told(answer)[2] <= 60 for answer in answers)


def test_a_key_that_asks_too_often_waits(client: httpx.Client, bearer: Bearer) -> None:
    eager, other = bearer("read"), bearer("read")
    assert [client.get(PATH, headers=eager).status_code for _ in range(7)] == [200] * 5 + [429] * 2
    refused = client.get(PATH, headers=eager)
    assert refused.json()["code"] == "RATE_LIMITED"
    assert told(refused)[:2] == (5, 0)
    assert int(refused.headers["retry-after"]) == told(refused)[2]
    assert client.get(PATH, headers=other).status_code == 200
    assert client.get("/healthz", headers=eager).status_code == 200


def test_a_key_may_have_a_number_of_its_own(client: httpx.Client, bearer: Bearer) -> None:
    slow, free = bearer("read", requests_per_minute=2), bearer("read", requests_per_minute=0)
    assert [client.get(PATH, headers=slow).status_code for _ in range(3)] == [200, 200, 429]
    answers = [client.get(PATH, headers=free) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in answer.headers for answer in answers)


def test_who_needs_no_key_is_not_counted(client: httpx.Client) -> None:
    answers = [client.get(PATH) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in answer.headers for answer in answers)


def make_first_key(client: httpx.Client) -> dict[str, str]:
    token = client.post("/v1/keys", json={"name": "k", "role": "read"}).json()["key"]
    time.sleep(OPEN_FOR_S)
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def two_processes(settings: Settings) -> Iterator[list[httpx.Client]]:
    """Two servers on one database and one broker, as two API processes are."""
    limited = Settings(**{**settings.model_dump(), "requests_per_minute": 5})
    with ExitStack() as opened:
        yield [opened.enter_context(TestClient(create_app(limited))) for _ in range(2)]


def test_processes_count_together(two_processes: list[httpx.Client]) -> None:
    headers = make_first_key(two_processes[0])
    left = [told(client.get(PATH, headers=headers))[1] for _ in range(2) for client in two_processes]
    assert left == [4, 3, 2, 1]


def test_a_broker_that_is_away_stops_nobody(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    away = Settings(**{**settings.model_dump(), "broker_url": AWAY, "requests_per_minute": 2})
    with TestClient(create_app(away)) as client:
        headers = make_first_key(client)
        answers = [client.get(PATH, headers=headers) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in answer.headers for answer in answers)
    assert capsys.readouterr().err.count("requests are not limited") == 1
