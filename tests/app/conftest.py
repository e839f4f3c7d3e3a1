"""Fixtures of the server's tests: a real application on fresh SQLite, a folder of blobs and a real Valkey."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.context import Context
from app.contracts.facts import DatasetFacts, ModelFacts
from app.contracts.states import IngestState
from app.datasets.tables import DatasetRow
from app.db.ids import new_id
from app.keys import service as keys
from app.keys.keyring import OPEN_FOR_S
from app.keys.schemas import NewKey
from app.models.tables import ModelRow
from app.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, broker_url: str, migrated_sqlite: Path) -> Settings:
    chosen = Settings(data=tmp_path / "data", broker_url=broker_url, max_upload_bytes=8 * 1024**2)
    chosen.data.mkdir()
    shutil.copy(migrated_sqlite, chosen.data / "slimline.db")
    return chosen


@pytest.fixture
def server(settings: Settings) -> FastAPI:
    from app.main import create_app

    return create_app(settings)


@pytest.fixture
def client(server: FastAPI) -> Iterator[httpx.Client]:
    with TestClient(server, raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def serving() -> Callable[[FastAPI], AbstractContextManager[str]]:
    """Puts an application behind a real server, whose broken transfers a client sees as broken; gives its URL."""

    @contextmanager
    def serve(app: FastAPI) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            running = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
            thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
            thread.start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            running.should_exit = True
            thread.join()

    return serve


@pytest.fixture
def served(server: FastAPI, serving: Callable[[FastAPI], AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of the application behind a real server."""
    with serving(server) as url:
        yield url


@pytest.fixture
def context(server: FastAPI) -> Context:
    found = server.state.context
    assert isinstance(found, Context)
    return found


@pytest.fixture
def make_model(context: Context) -> Callable[..., str]:
    """Insert a model row as checking would have left it; returns its id."""

    def make(state: IngestState = IngestState.READY, **columns: object) -> str:
        row = ModelRow(id=new_id("mdl"), name="net", filename="net.onnx", sha256="0" * 64, size_bytes=10, state=state)
        row.facts = ModelFacts(opset=18, inputs=[], outputs=[], parameters=4, layers=[])
        for name, value in columns.items():
            setattr(row, name, value)
        with context.database.write() as session:
            session.add(row)
        return row.id

    return make


@pytest.fixture
def make_dataset(context: Context) -> Callable[..., str]:
    """Insert a dataset row as checking would have left it; returns its id."""

    def make(state: IngestState = IngestState.READY, **columns: object) -> str:
        row = DatasetRow(id=new_id("dst"), name="set", filename="set.npz", sha256="1" * 64, size_bytes=10, state=state)
        row.facts = DatasetFacts(format="npz", samples=3, arrays=[], has_labels=True)
        for name, value in columns.items():
            setattr(row, name, value)
        with context.database.write() as session:
            session.add(row)
        return row.id

    return make


@pytest.fixture
def make_key(context: Context) -> Callable[..., str]:
    """Make a key as the command line does; returns its secret. From the first one on the server asks for a key."""

    def make(role: str = "submit", project: str = "default", **columns: object) -> str:
        with context.database.write() as session:
            row, token = keys.create(session, project, NewKey(name="a key", role=role))
            for name, value in columns.items():
                setattr(row, name, value)
        time.sleep(OPEN_FOR_S)
        return token

    return make


@pytest.fixture
def bearer(make_key: Callable[..., str]) -> Callable[..., dict[str, str]]:
    """The headers of a request with a new key."""
    return lambda *arguments, **columns: {"Authorization": f"Bearer {make_key(*arguments, **columns)}"}


@dataclass
class ApiProcess:
    """The API in a process of its own, which may be killed and started again at the same address."""

    settings: Settings
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from app.up.parts import server_command

        variables = {
            "SLIMLINE_DATA": str(self.settings.data),
            "SLIMLINE_BROKER_URL": self.settings.broker_url.get_secret_value(),
            "SLIMLINE_LOG_LEVEL": "ERROR",
        }
        self.process = subprocess.Popen(server_command("127.0.0.1", self.port), env={**os.environ, **variables})
        end = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"{self.url}/healthz")
            except httpx.TransportError:
                assert self.process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """As `kill -9`."""
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def api_process(settings: Settings) -> Iterator[ApiProcess]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    api = ApiProcess(settings, port)
    api.start()
    yield api
    api.kill()
