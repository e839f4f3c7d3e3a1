"""A part goes away and comes back while jobs wait and run, on a whole service: PostgreSQL, Valkey, S3, two workers."""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.faults.backends import Postgres, Valkey
from benchmarks.faults.books import read_books
from benchmarks.faults.house import QUICK_TO_NOTICE, House, find_children
from benchmarks.faults.link import Link
from benchmarks.faults.program import Program, wait_until

pytestmark = pytest.mark.xdist_group("s3")

AWAY_S = 3.0
STEPS, LONG = 6, 32


@pytest.fixture(scope="module")
def s3_link(s3_server: Any) -> Iterator[Link]:
    link = Link(int(s3_server.endpoint.rpartition(":")[2]))
    yield link
    link.close()


@pytest.fixture(scope="module")
def database(own_postgres: Postgres) -> str:
    return own_postgres.make_database("parts_away")


@pytest.fixture(scope="module")
def settings(own_valkey: Valkey, database: str, s3_server: Any, s3_link: Link) -> dict[str, str]:
    """Of a service on PostgreSQL, Valkey and S3; the last is reached through a link that can be cut."""
    chosen = {
        "DATABASE_URL": database,
        "BROKER_URL": own_valkey.url,
        "STORAGE_URL": "s3://parts-away/blobs",
        "STORAGE_ENDPOINT": f"http://127.0.0.1:{s3_link.port}",
        "STORAGE_ACCESS_KEY": s3_server.access_key,
        "STORAGE_SECRET_KEY": s3_server.secret_key,
        "DRAIN_S": "0.5",
    }
    return {**QUICK_TO_NOTICE, **{f"SLIMLINE_{name}": value for name, value in chosen.items()}}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[House]:
    opened = House(tmp_path_factory.mktemp("house"), settings)
    try:
        yield opened.open()
    finally:
        opened.close()


@pytest.fixture(scope="module")
def jobs(house: House, make_jobs: Callable[[str], Any]) -> Any:
    return make_jobs(house.url)


@pytest.fixture
def _all_is_well(house: House, jobs: Any, database: str) -> Iterator[None]:
    """Nothing that a client saw, and nothing in the books, is amiss after the test."""
    jobs.client.troubles.clear()
    yield
    assert not jobs.client.troubles
    books = read_books(database, house.folder)
    assert books.without_one_artifact == books.gaps == books.with_wrong_end == []


def forget_everything(valkey: Valkey) -> None:
    import redis

    redis.Redis(port=valkey.port).flushall()


def die_with_all_data(valkey: Valkey) -> None:
    valkey.lose_everything()
    time.sleep(1)
    valkey.open()


@pytest.mark.parametrize("lose", [pytest.param(forget_everything, marks=pytest.mark.slow), die_with_all_data])
@pytest.mark.usefixtures("_all_is_well")
def test_valkey_loses_everything(own_valkey: Valkey, jobs: Any, lose: Callable[[Valkey], None]) -> None:
    sent = [jobs.send(STEPS)]
    jobs.until_at_work(sent[0])
    sent += [jobs.send(), jobs.send()]
    lose(own_valkey)
    sent.append(jobs.send())
    for job in sent:
        assert jobs.assert_done_once(job)["attempt"] == 1


@pytest.mark.usefixtures("_all_is_well")
def test_a_job_ends_while_valkey_is_away(own_valkey: Valkey, jobs: Any) -> None:
    job = jobs.send(STEPS)
    jobs.until_at_work(job)
    own_valkey.kill()
    jobs.assert_done_once(job)
    time.sleep(AWAY_S)  # its message cannot be acknowledged
    own_valkey.open()
    jobs.assert_done_once(jobs.send())


@contextmanager
def a_busy_client(jobs: Any) -> Iterator[list[str]]:
    """Submits and reads without a pause, meanwhile; gives the ids of its jobs."""
    over, sent = threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            if len(sent) < 4:
                sent.append(jobs.send())
            jobs.look(sent[-1])
            time.sleep(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield sent
    finally:
        over.set()
        asking.join()


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
@pytest.mark.usefixtures("_all_is_well")
def test_postgresql_is_started_again(own_postgres: Postgres, jobs: Any, how: signal.Signals) -> None:
    job = jobs.send(STEPS)
    jobs.until_at_work(job)
    with a_busy_client(jobs) as sent:
        wait_until(lambda: sent, "nothing was sent")
        own_postgres.kill_all() if how == signal.SIGKILL else own_postgres.stop(how)
        time.sleep(AWAY_S)
        own_postgres.open()
        jobs.assert_done_once(job)
    for each in sent:
        jobs.assert_done_once(each)


@pytest.mark.slow
@pytest.mark.usefixtures("_all_is_well")
def test_the_bucket_is_away_for_a_while(s3_link: Link, jobs: Any, network: Path) -> None:
    job = jobs.send(STEPS)
    jobs.until_at_work(job)
    s3_link.cut()
    mending = threading.Timer(AWAY_S, s3_link.mend)
    mending.start()
    assert re.match("mdl_", jobs.client.upload("models", network, "while the bucket is away"))
    mending.join()
    assert jobs.assert_done_once(job)["attempt"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("_all_is_well")
def test_a_bucket_away_for_longer_than_a_request_waits_costs_a_job_nothing(s3_link: Link, jobs: Any) -> None:
    job = jobs.send(STEPS)
    jobs.until_at_work(job)
    s3_link.cut()
    answer = httpx.post(f"{jobs.client._http.base_url}/v1/models?name=n", content=jobs.network.read_bytes(), timeout=60)
    assert answer.status_code == 503
    assert answer.json()["code"] == "STORAGE_UNREACHABLE"
    assert int(answer.headers["retry-after"]) > 0
    assert jobs.look(job)["state"] == "running"
    s3_link.mend()
    assert jobs.assert_done_once(job)["attempt"] == 1


@pytest.mark.usefixtures("_all_is_well")
def test_a_worker_asked_to_stop_hands_its_job_back(house: House, jobs: Any) -> None:
    job, other = jobs.send(LONG), jobs.send()
    jobs.until_at_work(job)
    assert house.workers[0].stop(signal.SIGTERM) == 0
    assert jobs.look(job)["state"] == jobs.look(other)["state"] == "queued"
    house.workers[0].start()
    assert jobs.assert_done_once(job)["attempt"] == 2
    assert jobs.assert_done_once(other)["attempt"] == 1


@pytest.mark.usefixtures("_all_is_well")
def test_a_poison_job_is_stopped(house: House, jobs: Any) -> None:
    """Its child dies of a fault of memory each time before it has got anywhere."""
    job, over = jobs.send(LONG), threading.Event()

    def poison() -> None:
        while not over.wait(0.01):
            for child in find_children(house.workers[0]):
                child.send_signal(signal.SIGSEGV)

    thread = threading.Thread(target=poison)
    thread.start()
    ended = jobs.client.finish(job)
    over.set()
    thread.join()
    assert (ended["state"], ended["attempt"]) == ("failed", 3)
    assert "SIGSEGV" in ended["failure"]["message"]


@pytest.fixture
def far_worker(
    house: House, settings: dict[str, str], own_postgres: Postgres, own_valkey: Valkey, s3_server: Any
) -> Iterator[tuple[Program, list[Link]]]:
    """A worker on another machine, as far as its lines go, and these lines."""
    s3_port = int(s3_server.endpoint.rpartition(":")[2])
    links = [Link(own_postgres.port), Link(own_valkey.port), Link(s3_port)]
    postgres, valkey, s3 = (link.port for link in links)
    worker = house.make_worker(
        "far-worker",
        SLIMLINE_DATABASE_URL=settings["SLIMLINE_DATABASE_URL"].replace(f":{own_postgres.port}/", f":{postgres}/"),
        SLIMLINE_BROKER_URL=own_valkey.url.replace(str(own_valkey.port), str(valkey)),
        SLIMLINE_STORAGE_ENDPOINT=f"http://127.0.0.1:{s3}",
    )
    yield worker.start(), links
    worker.kill_all()
    for link in links:
        link.close()


@pytest.mark.slow
@pytest.mark.usefixtures("_all_is_well")
def test_a_worker_cut_off_for_longer_than_its_lease_loses_its_job(
    house: House, jobs: Any, far_worker: tuple[Program, list[Link]]
) -> None:
    worker, links = far_worker
    near = house.workers[0]
    near.stop()
    job = jobs.send(LONG)
    jobs.until_at_work(job)
    for link in links:
        link.cut()
    near.start()
    jobs.until(job, lambda seen: seen["attempt"] == 2)
    for link in links:
        link.mend()
    assert jobs.assert_done_once(job)["attempt"] == 2
    wait_until(lambda: not find_children(worker), "the old worker still computes")
    again = jobs.send()
    jobs.assert_done_once(again)
