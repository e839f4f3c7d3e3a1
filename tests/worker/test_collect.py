"""The collector against real rows and real stores: what is needed stays, what is not goes, and the disk is smaller."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.artifacts.tables import ArtifactRow
from app.contracts.states import IngestState, JobState
from app.db.base import utc_now
from app.db.ids import new_id
from app.db.migrate import upgrade
from app.jobs import repository as jobs
from app.jobs.queue import attempts, moves
from app.jobs.tables import JobRow
from app.models import service as models
from app.settings import Settings
from app.storage import Blob, BlobStore, open_store
from app.storage.folder import FolderStore
from worker.collector import Collector, Freed, collecting
from worker.reporter.collect import Records
from worker.workspace import Stock

NOTHING = Freed(0, 0)

COLLECT = """
import sys, threading
from app.settings import Settings
from worker.collector import Collector
from worker.reporter.collect import Records
from worker.workspace import Stock

class Telling(Stock):
    def remove(self, blob):
        print(super().remove(blob), flush=True)

settings = Settings(data=sys.argv[1], database_url=sys.argv[2])
collector = Collector(Records(settings), Telling.open(settings), 0, threading.Event())
collector.run()
collector.run()
"""


@pytest.fixture
def store(settings: Settings) -> BlobStore:
    return open_store(settings)


@pytest.fixture
def stock(store: BlobStore) -> Stock:
    return Stock(store)


@pytest.fixture
def records(settings: Settings) -> Iterator[Records]:
    opened = Records(settings)
    yield opened
    opened.close()


@pytest.fixture
def make_collector(records: Records, stock: Stock) -> Callable[..., Collector]:
    """A collector to which every blob is old enough, unless told otherwise."""

    def make(after_s: float = 0) -> Collector:
        return Collector(records, stock, after_s, threading.Event())

    return make


def put(store: BlobStore, content: bytes) -> Blob:
    with store.receive() as incoming:
        incoming.write(content)
        return incoming.commit()


def there(store: BlobStore, *blobs: Blob) -> list[bool]:
    stored = {found.sha256 for found in store.listing()}
    return [blob.sha256 in stored for blob in blobs]


def disk_bytes(settings: Settings) -> int:
    return sum(path.stat().st_size for path in Path(settings.storage).rglob("*") if path.is_file())


class TestOnBothStores:
    """Of the databases SQLite will do: the other tests have both."""

    @pytest.fixture(params=["folder", "bucket"])
    def settings(self, request: pytest.FixtureRequest, tmp_path: Path, broker_url: str) -> Settings:
        chosen = Settings(data=tmp_path / "data", broker_url=broker_url)
        if request.param == "bucket":
            server = request.getfixturevalue("s3_server")
            chosen = chosen.model_copy(
                update={
                    "storage_url": f"s3://blobs/collect-{tmp_path.name}",
                    "storage_endpoint": server.endpoint,
                    "storage_access_key": type(chosen.storage_access_key)(server.access_key),
                    "storage_secret_key": type(chosen.storage_secret_key)(server.secret_key),
                }
            )
        upgrade(chosen.database)
        return chosen

    def test_the_listing_knows_name_size_and_age(self, store: BlobStore) -> None:
        before = store.clock()
        blobs = {blob.sha256: blob for blob in (put(store, b"one"), put(store, b"three"))}
        found = {blob.sha256: blob for blob in store.listing()}
        assert {name: blob.size_bytes for name, blob in found.items()} == {
            name: blob.size_bytes for name, blob in blobs.items()
        }
        for blob in found.values():
            assert before - 2 <= blob.stored_at <= store.clock() + 2  # S3 tells whole seconds

    def test_what_is_needed_stays_and_the_rest_goes(
        self, bench: Any, store: BlobStore, make_collector: Callable[..., Collector]
    ) -> None:
        model = Blob(bench.find(bench.upload()).sha256, 9)
        garbage = put(store, b"no row refers to this")
        collector = make_collector()
        assert collector.run() == NOTHING  # one look is not enough
        assert collector.run() == Freed(1, 21)
        assert there(store, model, garbage) == [True, False]
        assert collector.run() == NOTHING

    def test_what_is_fresh_stays(self, store: BlobStore, make_collector: Callable[..., Collector]) -> None:
        garbage = put(store, b"its row is not committed yet")
        collector = make_collector(after_s=60)
        assert [collector.run() for _ in range(3)] == [NOTHING] * 3
        assert there(store, garbage) == [True]

    def test_content_put_again_after_the_listing_stays(self, store: BlobStore, stock: Stock) -> None:
        blob = put(store, b"wanted once more")
        time.sleep(1.1)  # S3 tells whole seconds
        (listed,) = stock.find_old(0)
        put(store, b"wanted once more")
        assert not stock.remove(listed)
        assert there(store, blob) == [True]
        (listed,) = stock.find_old(0)
        assert stock.remove(listed)
        assert not stock.remove(listed)  # another collector was faster
        assert there(store, blob) == [False]

    def test_other_objects_stay(self, store: BlobStore, stock: Stock) -> None:
        store.check()
        put(store, b"a blob")
        assert len(list(stock.find_old(0))) == 1


def test_a_row_that_comes_between_two_runs_keeps_its_blob(
    bench: Any, store: BlobStore, make_collector: Callable[..., Collector]
) -> None:
    blob = put(store, b"taken over from a row that is gone")
    collector = make_collector()
    collector.run()
    bench.upload(sha256=blob.sha256)
    assert collector.run() == NOTHING
    assert there(store, blob) == [True]


def test_a_shared_blob_goes_with_the_last_model(
    bench: Any, settings: Settings, make_collector: Callable[..., Collector]
) -> None:
    first, second = bench.upload(state=IngestState.READY), bench.upload(state=IngestState.READY)
    collector = make_collector()
    full = disk_bytes(settings)
    for model, freed in ((first, NOTHING), (second, Freed(1, 9))):
        with bench.database.write() as session:
            models.delete(session, model)
        collector.run()
        assert collector.run() == freed
    assert disk_bytes(settings) == full - 9


def test_a_finished_job_keeps_what_it_made_and_nothing_else(
    bench: Any, store: BlobStore, reporter: Any, make_collector: Callable[..., Collector]
) -> None:
    job = bench.submit()
    attempt = reporter.claim_job(job).claim.attempt
    checkpoint, partial, graph, made = (put(store, name) for name in (b"checkpoint", b"partial", b"graph", b"made"))
    with bench.database.write() as session:
        attempts.save_checkpoint(session, job, attempt, 0, checkpoint.sha256)
        attempts.save_partial_checkpoint(session, job, attempt, 1, partial.sha256)
        jobs.keep_graph(session, job, 0, graph.sha256)
        values = {"format": "onnx", "filename": "n.onnx", "sha256": made.sha256, "size_bytes": made.size_bytes}
        session.add(ArtifactRow(id=new_id("art"), job_id=job, **values))
    collector = make_collector()
    assert [collector.run() for _ in range(2)] == [NOTHING] * 2
    with bench.database.write() as session:
        moves.move(session, job, JobState.SUCCEEDED, attempt=attempt)
    collector.run()
    assert collector.run().blobs == 3
    assert there(store, checkpoint, partial, graph, made) == [False, False, False, True]


def test_old_jobs_go_with_their_artifacts(bench: Any, settings: Settings, store: BlobStore, stock: Stock) -> None:
    old, new = bench.submit(), bench.submit()
    made = {job: put(store, job.encode()) for job in (old, new)}
    with bench.database.write() as session:
        for job, days in ((old, 8), (new, 6)):
            moves.move(session, job, JobState.CANCELLED)
            ended = utc_now() - timedelta(days=days)
            session.execute(update(JobRow).where(JobRow.id == job).values(finished_at=ended))
            values = {"format": "onnx", "filename": "n.onnx", "sha256": made[job].sha256, "size_bytes": 30}
            session.add(ArtifactRow(id=new_id("art"), job_id=job, **values))
    records = Records(settings.model_copy(update={"retention_days": 7}))
    collector = Collector(records, stock, 0, threading.Event())
    assert [collector.run(is_clock_steady=False).blobs for _ in range(2)] == [0, 0]
    assert len(bench.artifacts(old)) == 1
    assert [collector.run().blobs for _ in range(2)] == [0, 1]
    records.close()
    assert there(store, *made.values()) == [False, True]
    assert bench.artifacts(old) == []
    assert len(bench.artifacts(new)) == 1


def test_many_blobs_take_several_looks(
    records: Records, store: BlobStore, stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.collector.BATCH", 3)
    for number in range(8):
        put(store, b"%d" % number)
    collector = Collector(records, stock, 0, threading.Event())
    assert [collector.run() for _ in range(3)] == [NOTHING, Freed(8, 8), NOTHING]


def test_what_is_remembered_has_a_bound(
    records: Records, store: BlobStore, stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.collector.SUSPECTS_MOST", 3)
    for number in range(5):
        put(store, b"%d" % number)
    collector = Collector(records, stock, 0, threading.Event())
    assert sum(collector.run().blobs for _ in range(6)) == 5


def test_several_collectors_at_once_do_no_harm(
    bench: Any, store: BlobStore, make_collector: Callable[..., Collector]
) -> None:
    kept = bench.find(bench.upload()).sha256
    garbage = [put(store, os.urandom(10)) for _ in range(50)]
    collectors = [make_collector() for _ in range(3)]
    for collector in collectors:
        collector.run()
    freed: list[Freed] = []
    threads = [threading.Thread(target=lambda each=each: freed.append(each.run())) for each in collectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.blobs for each in freed) == 50
    assert not any(there(store, *garbage))
    assert [blob.sha256 for blob in store.listing()] == [kept]


def test_content_that_is_put_at_the_moment_of_its_removal_is_there_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer begins when the collector has looked at the age and is about to remove the file."""
    store = FolderStore(tmp_path)
    blob = put(store, b"the same")
    (listed,) = store.listing()
    writer = threading.Thread(target=put, args=(store, b"the same"))
    unlink = Path.unlink

    def unlink_late(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == blob.sha256:
            writer.start()
            writer.join(0.5)
            assert writer.is_alive()  # it waits for the collector
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_late)
    assert store.delete_listed(listed)
    writer.join()
    assert there(store, blob) == [True]


def test_a_killed_collector_has_lost_nothing(
    bench: Any, settings: Settings, store: BlobStore, make_collector: Callable[..., Collector]
) -> None:
    kept = Blob(bench.find(bench.upload()).sha256, 9)
    for number in range(100):
        put(store, b"garbage %d" % number)
    with subprocess.Popen(
        [sys.executable, "-c", COLLECT, settings.data, settings.database], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()  # it has removed one
        process.send_signal(signal.SIGKILL)
    assert there(store, kept) == [True]
    collector = make_collector()
    left = len(list(store.listing())) - 1
    assert [collector.run().blobs for _ in range(2)] == [0, left]
    assert 0 < left < 100


def test_the_collector_runs_beside_the_sweep(
    bench: Any, settings: Settings, store: BlobStore, until: Callable[[Callable[[], object]], None]
) -> None:
    kept, garbage = Blob(bench.find(bench.upload()).sha256, 9), put(store, b"garbage")
    stopped = threading.Event()
    with collecting(stopped, settings.model_copy(update={"collect_s": 0.02, "collect_after_s": 0})):
        until(lambda: not any(there(store, garbage)))
        stopped.set()
    assert there(store, kept) == [True]
