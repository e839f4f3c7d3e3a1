"""The stores under test: a folder, and a bucket of a real S3 server (SeaweedFS, from its wheel)."""

from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.storage import BlobStore, open_store


@pytest.fixture
def bucket_settings(s3_server: Any, tmp_path: Path) -> Settings:
    """A prefix of its own in the bucket."""
    return Settings(
        data=tmp_path / "data", storage_url=f"s3://blobs/{tmp_path.name}", storage_endpoint=s3_server.endpoint,
        storage_access_key=s3_server.access_key, storage_secret_key=s3_server.secret_key,
    )  # fmt: skip


@pytest.fixture(params=["folder", "bucket"])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "folder":
        return Settings(data=tmp_path / "data")
    settings: Settings = request.getfixturevalue("bucket_settings")
    return settings


@pytest.fixture
def store(store_settings: Settings) -> BlobStore:
    return open_store(store_settings)
