"""A disk fills up under blobs, work folders and the database; and another program locks SQLite. On small real disks."""

import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.faults.backends import Valkey
from benchmarks.faults.books import find_blobs, read_books
from benchmarks.faults.house import QUICK_TO_NOTICE, House
from benchmarks.faults.program import wait_until

pytestmark = pytest.mark.xdist_group("faults-disks")

DISK_BYTES = 4 * 1024**2
DATABASE_BYTES = 64 * 1024**2  # the log of SQLite alone may take half of it
STEPS = 6
DISKS = {"database": DATABASE_BYTES, "blobs": DISK_BYTES, "work": 4 * DISK_BYTES}  # a fast child has many steps there


class Disk:
    """A small file system in memory, mounted at `folder`."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "slimline-test", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")

    def fill(self) -> None:
        """Leave no byte."""
        with self._ballast.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(64 * 1024))
                except OSError:
                    return

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        self.fill()
        try:
            yield
        finally:
            self.make_room()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Disk]]:
    folder = tmp_path_factory.mktemp("disks")
    mounted: dict[str, Disk] = {}
    try:
        for name, size in DISKS.items():
            mounted[name] = Disk(folder / name, size)
        yield mounted
    finally:
        for disk in mounted.values():
            disk.unmount()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, disks: dict[str, Disk], own_valkey: Valkey) -> Iterator[House]:
    chosen = {
        "DATABASE_URL": f"sqlite:///{disks['database'].folder / 'slimline.db'}",
        "BROKER_URL": own_valkey.url.removesuffix("0") + "1",
        "STORAGE_URL": str(disks["blobs"].folder / "blobs"),
    }
    settings = {**QUICK_TO_NOTICE, **{f"SLIMLINE_{name}": value for name, value in chosen.items()}}
    opened = House(tmp_path_factory.mktemp("house"), settings)
    opened.workers[0].environment = {
        **opened.workers[0].environment, "SLIMLINE_WORK_DIR": str(disks["work"].folder / "work")
    }  # fmt: skip
    try:
        yield opened.open()
    finally:
        opened.close()


@pytest.fixture(scope="module")
def jobs(house: House, make_jobs: Callable[[str], Any]) -> Any:
    return make_jobs(house.url)


@pytest.fixture
def database(disks: dict[str, Disk]) -> Iterator[Path]:
    """The database, whose books are in order after the test."""
    file = disks["database"].folder / "slimline.db"
    yield file
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    books = read_books(f"sqlite:///{file}", disks["blobs"].folder / "blobs")
    assert books.without_one_artifact == books.gaps == books.with_wrong_end == []


def find_jobs(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [job for (job,) in connection.execute("SELECT id FROM jobs")]


@pytest.mark.usefixtures("database")
def test_no_room_for_an_upload(disks: dict[str, Disk], house: House, jobs: Any) -> None:
    blobs = disks["blobs"].folder / "blobs"
    before = find_blobs(blobs)
    for size in (DISK_BYTES * 2, 100):
        if size == 100:
            disks["blobs"].fill()
        answer = httpx.post(f"{house.url}/v1/models?name=big", content=b"\x01" * size, timeout=60)
        assert answer.status_code == 503
        assert answer.json()["code"] == "STORAGE_FULL"
        assert int(answer.headers["retry-after"]) > 0
        assert find_blobs(blobs) == before
        assert list((blobs / "incoming").iterdir()) == []
    disks["blobs"].make_room()
    assert jobs.client.upload("models", jobs.network, "there is room again")


@pytest.mark.usefixtures("database")
def test_a_job_waits_for_room_for_its_blobs(disks: dict[str, Disk], jobs: Any) -> None:
    job = jobs.send(STEPS)
    jobs.until_at_work(job)
    with disks["blobs"].full():
        time.sleep(2)
        assert jobs.look(job)["state"] == "running"
    assert jobs.assert_done_once(job)["attempt"] == 1


@pytest.mark.usefixtures("database")
def test_a_job_waits_for_room_to_work_in(disks: dict[str, Disk], jobs: Any) -> None:
    with disks["work"].full():
        job = jobs.send(STEPS)
        jobs.until(job, lambda seen: seen["state"] == "running")
        time.sleep(1)
        assert jobs.look(job)["state"] == "running"
    assert jobs.assert_done_once(job)["attempt"] == 1
    assert shutil.disk_usage(disks["work"].folder).used < DISK_BYTES / 10  # nothing half-written stays


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_job_whose_engine_finds_no_room_comes_again_later(disks: dict[str, Disk], jobs: Any) -> None:
    job = jobs.send(4 * STEPS)
    jobs.until_at_work(job)
    with disks["work"].full():
        jobs.until(job, lambda seen: seen["state"] == "queued")
    assert jobs.assert_done_once(job)["attempt"] == 2
    assert any("disk is full" in event["data"].get("message", "") for event in jobs.events(job))


@pytest.mark.slow
def test_the_database_has_no_room(disks: dict[str, Disk], jobs: Any, database: Path) -> None:
    job = jobs.send(STEPS)
    jobs.until_at_work(job)
    jobs.client.troubles.clear()
    before = len(find_jobs(database))
    sent: list[str] = []
    with disks["database"].full():
        sending = [threading.Thread(target=lambda: sent.append(jobs.send())) for _ in range(4)]
        for each in sending:
            each.start()
        time.sleep(2)
        # What SQLite finds room for within its files goes through; the rest waits.
        assert len(find_jobs(database)) < before + len(sending)
    for each in sending:
        each.join()
    assert not jobs.client.troubles
    for each in (job, *sent):
        jobs.assert_done_once(each)
    assert len(find_jobs(database)) == before + len(sending)


def test_sqlite_is_locked_by_another_program(jobs: Any, database: Path) -> None:
    job = jobs.send(STEPS)
    jobs.until_at_work(job, 0)
    jobs.client.troubles.clear()
    done: list[str] = []
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        sending = threading.Thread(target=lambda: done.append(jobs.send()))
        sending.start()
        assert jobs.look(job)["state"] == "running"  # reading needs no lock
        time.sleep(2)
        assert not done
        other.execute("ROLLBACK")
    sending.join()
    assert not jobs.client.troubles
    wait_until(lambda: done, "the job was not sent")
    for each in (job, *done):
        assert jobs.assert_done_once(each)["attempt"] == 1
