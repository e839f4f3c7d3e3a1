"""A real server with one route that takes uploads, and the folder it keeps them in."""

import socket
import threading
import time
from collections.abc import Iterator
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

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/up"
    server.should_exit = True
    thread.join()
    listening.close()
