"""A real server with one route that takes uploads, and the folder it keeps them in."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
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
def upload_url(blobs: Path, serving: Callable[[FastAPI], AbstractContextManager[str]]) -> Iterator[str]:
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
