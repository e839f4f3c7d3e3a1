"""The stores under test: a folder, and a bucket of a real S3 server (SeaweedFS, from its wheel)."""

import json
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from app.settings import Settings
from app.storage import BlobStore, open_store

KEYS = {"access_key_id": "test-key", "secret_access_key": "test-secret"}
START_S = 60


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running S3 server with the bucket `blobs`."""
    folder = tmp_path_factory.mktemp("weed")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEYS["access_key_id"], "secretKey": KEYS["secret_access_key"]}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    port, command = weed_command(folder)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        wait_until_writable(endpoint, server, folder / "log")
        yield endpoint
    finally:
        server.kill()
        server.wait()


def weed_command(folder: Path) -> tuple[int, list[str]]:
    master, volume, filer, s3 = free_ports(4)
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    options = (
        f"-ip=127.0.0.1 -dir={folder} -s3 -s3.config={folder / 's3.json'} -master.telemetry=false"
        f" -master.port={master} -volume.port={volume} -filer.port={filer} -s3.port={s3}"
        f" -s3.port.iceberg=0 -s3.port.lance=0 -filer.localSocket={folder / 'filer.sock'}"
        " -master.volumeSizeLimitMB=64 -volume.max=16 -volume.preStopSeconds=0"
    )
    return s3, [str(weed), "server", *options.split()]


def free_ports(count: int) -> list[int]:
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


def wait_until_writable(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    store = S3Store(
        "blobs", **KEYS, endpoint=endpoint, region="us-east-1",
        client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )  # fmt: skip
    end = time.monotonic() + START_S
    while True:
        try:
            obstore.put(store, "up", b"up")
        except BaseError:
            if server.poll() is not None or time.monotonic() > end:
                pytest.fail(f"no S3 server: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def bucket_settings(s3_endpoint: str, tmp_path: Path) -> Settings:
    """A prefix of its own in the bucket."""
    return Settings(
        data=tmp_path / "data", storage_url=f"s3://blobs/{tmp_path.name}", storage_endpoint=s3_endpoint,
        storage_access_key=KEYS["access_key_id"], storage_secret_key=KEYS["secret_access_key"],
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
