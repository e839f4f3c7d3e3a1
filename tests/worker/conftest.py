"""Fixtures of the worker's tests: a real fork server, and a way to have a probe run in a real child."""

import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import update

from app.artifacts import repository as artifacts
from app.artifacts.tables import ArtifactRow
from app.contracts.job_spec import JobSpec
from app.contracts.messages import Queue
from app.contracts.states import IngestState
from app.datasets.tables import DatasetRow
from app.db.base import utc_now
from app.db.database import Database
from app.db.ids import new_id
from app.dispatch import Dispatcher, make_celery
from app.jobs import repository as jobs
from app.jobs import service
from app.jobs.tables import JobRow
from app.keys.tables import ProjectRow
from app.models.tables import ModelRow
from app.settings import Settings
from app.storage import open_store
from worker.child import Order
from worker.confinement import Confinement
from worker.forkserver import ForkServer
from worker.outcome import Outcome
from worker.reporter import Reporter
from worker.supervisor import Command, Supervisor, Watch
from worker.sweeper import count_messages
from worker.tasks import Tasks

GIB = 1024**3

RunProbe = Callable[..., Outcome]


@pytest.fixture(scope="session")
def probes() -> Iterator[ModuleType]:
    """The probes, which children import by name from the worker's sys.path."""
    folder = str(Path(__file__).parent)
    sys.path.append(folder)
    yield importlib.import_module("probes")
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def heavy_server(probes: ModuleType) -> Iterator[ForkServer]:
    """With the tensor libraries loaded, shared by all tests that do no harm to it."""
    server = ForkServer(preload=("numpy", "onnx", "onnxruntime", "torch", probes.__name__))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def light_server(probes: ModuleType) -> Iterator[ForkServer]:
    """With little loaded: for tests that kill it."""
    server = ForkServer(preload=(probes.__name__,))
    yield server
    server.stop()


@pytest.fixture
def supervisor(heavy_server: ForkServer) -> Supervisor:
    return Supervisor(heavy_server)


@pytest.fixture
def run_probe(supervisor: Supervisor, tmp_path: Path) -> RunProbe:
    """Runs `probes.NAME`, or `MODULE:NAME`, with arguments. `data_bytes`, `cpu_s`, `file_bytes` and
    `may_start_processes` confine it, the rest is the Watch.
    """

    def run(
        name: str, arguments: dict[str, Any] | None = None, *, by: Supervisor = supervisor, **limits: Any
    ) -> Outcome:
        confinement = Confinement(
            memory_bytes=limits.pop("data_bytes", 4 * GIB),
            cpu_s=limits.pop("cpu_s", 60),
            file_bytes=limits.pop("file_bytes", GIB),
            may_start_processes=limits.pop("may_start_processes", True),
        )
        entry = name if ":" in name else f"probes:{name}"
        order = Order(entry=entry, arguments=arguments or {}, confinement=confinement)
        usual: dict[str, Any] = {
            "run_s": 60,
            "memory_bytes": 8 * GIB,
            "on_event": lambda _event: None,
            "on_tick": lambda: Command.CONTINUE,
        }
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return by.run(order, folder, Watch(**(usual | limits)))

    return run


@pytest.fixture
def settings(tmp_path: Path, broker_url: str, database_url: str) -> Settings:
    """A service with quick heartbeats, on SQLite and on PostgreSQL."""
    return Settings(
        data=tmp_path / "data",
        database_url=database_url,
        broker_url=broker_url,
        heartbeat_s=0.05,
        lease_s=1.5,
        sweep_s=0.2,
    )


class Bench:
    """A service without its server: does to the rows what the API does, and looks at them."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.database = Database(settings.database, Dispatcher(settings.broker))
        self._store = open_store(settings)
        self._file = folder / "net.onnx"
        self._file.write_bytes(b"a network")
        self._broker = make_celery(settings.broker)

    def upload(self, file: Path | None = None, **columns: Any) -> str:
        """Store a file (a model whose content only a probe can use) and insert its row; returns the id."""
        file = file or self._file
        blob = self._store.put_file(file)
        table, prefix = (DatasetRow, "dst") if file.suffix in {".npz", ".zip"} else (ModelRow, "mdl")
        columns = {"sha256": blob.sha256, "size_bytes": blob.size_bytes, **columns}
        row = table(id=new_id(prefix), name=file.stem, filename=file.name, **columns)
        with self.database.write() as session:
            session.add(row)
        return row.id

    def submit(self, model: str | None = None, *, project: str = "default", **spec: Any) -> str:
        """Queue a job, on a model that is ready unless one is named; returns its id."""
        model = model or self.upload(state=IngestState.READY, project=project)
        chosen = {"model": model, "recipe": [{"method": "prune.magnitude", "amount": 0.5}], **spec}
        with self.database.write(project) as session:
            session.merge(ProjectRow(name=project))
            return service.submit(session, JobSpec.model_validate(chosen)).id

    def cancel(self, job: str) -> None:
        with self.database.write() as session:
            service.cancel(session, job)

    def find(self, id_: str) -> Any:
        """The row of an id as it is now."""
        tables = {"job": JobRow, "mdl": ModelRow, "dst": DatasetRow}
        with self.database.read() as session:
            return session.get_one(tables[id_[:3]], id_)

    def events(self, job: str) -> list[tuple[str, dict[str, Any]]]:
        """Type and data of every stored event."""
        with self.database.read() as session:
            rows, _ = jobs.fetch_events(session, job, after_seq=0, limit=1000)
            return [(row.type, row.data) for row in rows]

    def artifacts(self, job: str) -> list[ArtifactRow]:
        with self.database.read() as session:
            return list(artifacts.of_job(session, job))

    def expire(self, job: str) -> None:
        """End the lease of a job, as time would."""
        with self.database.write() as session:
            session.execute(update(JobRow).where(JobRow.id == job).values(lease_until=utc_now()))

    def count_messages(self, queue: Queue = Queue.CPU) -> int:
        return count_messages(self._broker, queue)

    def lose_messages(self) -> None:
        with self._broker.connection_for_write() as connection:
            connection.default_channel.client.flushall()

    def workspaces(self) -> list[Path]:
        return list(self.settings.workspaces.iterdir())

    def close(self) -> None:
        self.database.close()
        self._broker.close()


@pytest.fixture
def bench(settings: Settings, tmp_path: Path) -> Iterator[Bench]:
    opened = Bench(settings, tmp_path)
    opened.lose_messages()
    yield opened
    opened.close()


@pytest.fixture
def tasks(settings: Settings, heavy_server: ForkServer) -> Iterator[Tasks]:
    opened = Tasks(settings, heavy_server)
    yield opened
    opened.close()


@pytest.fixture
def reporter(settings: Settings) -> Iterator[Reporter]:
    opened = Reporter(settings)
    yield opened
    opened.close()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Waits for something to come true."""

    def wait(condition: Callable[[], object]) -> None:
        give_up_at = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < give_up_at, "it did not come to pass"
            time.sleep(0.01)

    return wait
