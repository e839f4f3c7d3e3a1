"""kill -9 of the API in the middle of a piece: the offset told afterwards is true, and the upload goes on."""

import base64
import hashlib
import os
import socket
import time
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.uploads import service

TUS = {"tus-resumable": "1.0.0"}
PIECE = {**TUS, "content-type": "application/offset+octet-stream"}
CONTENT = os.urandom(70 * 1024**2)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KILLED_AT = 66 * 1024**2
"""Behind the place where an unchecked piece is counted, before its end."""


def offset_of(api: Any, url: str) -> int:
    return int(httpx.head(api.url + url, headers=TUS).headers["upload-offset"])


@pytest.mark.parametrize("is_checked", [False, True])
def test_the_offset_is_true_after_a_kill(api_process: Any, settings: Settings, is_checked: bool) -> None:
    begun = httpx.post(f"{api_process.url}/v1/uploads", headers={**TUS, "upload-length": str(len(CONTENT))})
    url = begun.headers["location"]
    first = CONTENT[:1_000_000]
    httpx.patch(api_process.url + url, content=first, headers={**PIECE, "upload-offset": "0"})
    rest = CONTENT[len(first) :]
    headers = {**PIECE, "upload-offset": str(len(first)), "content-length": str(len(rest))}
    if is_checked:
        digest = base64.b64encode(hashlib.sha256(rest).digest()).decode()
        headers["upload-checksum"] = f"sha256 {digest}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", api_process.port)) as line:
        line.sendall(f"PATCH {url} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode())
        line.sendall(rest[:KILLED_AT])
        part = service.folder(settings) / url.rpartition("/")[2]
        wait_until(lambda: part.stat().st_size > KILLED_AT - 2 * 1024**2)
        if not is_checked:
            wait_until(lambda: offset_of(api_process, url) > len(first))
        api_process.kill()
    assert part.stat().st_size > len(first)
    api_process.start()
    offset = offset_of(api_process, url)
    if is_checked:  # what was not checked to its end does not count
        assert offset == len(first)
    else:
        assert 64 * 1024**2 < offset <= len(first) + KILLED_AT
    rest = CONTENT[offset:]
    done = httpx.patch(api_process.url + url, content=rest, headers={**PIECE, "upload-offset": str(offset)})
    assert (done.status_code, done.headers["upload-offset"]) == (204, str(len(CONTENT)))
    model = httpx.post(f"{api_process.url}/v1/models", json={"upload": url.rpartition("/")[2]}).json()
    assert (model["sha256"], model["size_bytes"]) == (SHA256, len(CONTENT))


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
