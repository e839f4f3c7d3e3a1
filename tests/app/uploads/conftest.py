"""A real server with one route that takes uploads, and the folder it keeps them in."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request

from app.errors import install_handlers
from app.storage.folder import FolderStore
from app.uploads import receive_upload

MAX_BYTES = 3_000_000


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """The folder that uploads end in."""
    return tmp_path / "blobs"


@pytest.fixture
def upload_url(blobs: Path) -> Iterator[str]:
    app = FastAPI()
    install_handlers(app)
    store = FolderStore(blobs)

    @app.post("/up")
    async def _take(request: Request) -> dict[str, object]:
        async with receive_upload(request, store, MAX_BYTES) as upload:
            if upload.fields.get("refuse"):
                return {}
            blob = await upload.keep()
        return {"sha256": blob.sha256, "filename": upload.filename, "fields": upload.fields}

    with serving(app) as url:
        yield f"{url}/up"


@pytest.fixture
def served(server: FastAPI) -> Iterator[str]:
    """The URL of the whole application behind a real server."""
    with serving(server) as url:
        yield url


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()
