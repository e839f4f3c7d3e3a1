"""Uploads over a real connection: what is taken, what is refused and how, and that a refusal leaves nothing."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.uploads import receive

BARE = {"content-type": "application/octet-stream"}
CONTENT = os.urandom(2_500_000)
FILE_HEAD = '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_multipart(upload_url: str) -> None:
    answer = httpx.post(
        upload_url,
        files={"file": ("netz größe.onnx", CONTENT)},
        data={"name": "ünï", "tags": '{"team": "a"}'},
    )
    assert answer.json() == {
        "sha256": SHA256,
        "filename": "netz größe.onnx",
        "fields": {"name": "ünï", "tags": '{"team": "a"}'},
    }


def test_fields_may_come_before_or_after_the_file(upload_url: str) -> None:
    boundary = "line"
    parts = ['name="a"\r\n\r\n1', 'name="file"; filename="f"\r\n\r\nbytes', 'name="b"\r\n\r\n2']
    body = (
        "".join(f"--{boundary}\r\nContent-Disposition: form-data; {part}\r\n" for part in parts) + f"--{boundary}--\r\n"
    )
    answer = httpx.post(upload_url, content=body, headers={"content-type": f"multipart/form-data; boundary={boundary}"})
    assert answer.json()["fields"] == {"a": "1", "b": "2"}
    assert answer.json()["sha256"] == hashlib.sha256(b"bytes").hexdigest()


@pytest.mark.parametrize(
    "headers",
    [BARE, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "Application/ZIP; a=b"}, {}],
)
def test_bare_bytes(upload_url: str, headers: dict[str, str]) -> None:
    answer = httpx.post(upload_url, content=CONTENT, headers=headers, params={"name": "n"})
    assert answer.json() == {"sha256": SHA256, "filename": "", "fields": {"name": "n"}}


def test_bare_bytes_take_their_filename_from_content_disposition(upload_url: str) -> None:
    headers = {**BARE, "content-disposition": "attachment; filename*=UTF-8''na%C3%AFve.onnx"}
    assert httpx.post(upload_url, content=b"x", headers=headers).json()["filename"] == "naïve.onnx"


def test_the_tour_with_curl(upload_url: str, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    file = tmp_path / "model.onnx"
    file.write_bytes(CONTENT)
    for options in (["-F", f"file=@{file}"], ["--data-binary", f"@{file}"]):
        done = subprocess.run([curl, "-s", *options, upload_url], capture_output=True, check=True)
        assert json.loads(done.stdout)["sha256"] == SHA256


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_413_and_the_answer_arrives(upload_url: str, blobs: Path, chunked: bool) -> None:
    def body() -> Iterator[bytes]:
        yield from [CONTENT] * 8

    sent = body() if chunked else CONTENT * 8
    answer = httpx.post(upload_url, content=sent, headers=BARE)
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")
    assert "3000000" in answer.json()["detail"]
    assert files(blobs) == []


def test_a_form_whose_file_is_over_the_limit_is_413(upload_url: str) -> None:
    answer = httpx.post(upload_url, files={"file": ("f", bytes(3_000_001))})
    assert answer.status_code == 413
    assert httpx.post(upload_url, files={"file": ("f", bytes(3_000_000))}).status_code == 200


def test_a_form_padded_behind_its_end_is_413(upload_url: str, blobs: Path) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}

    def padded() -> Iterator[bytes]:
        yield f"{FILE_HEAD}x\r\n--b--\r\n".encode()
        yield from [bytes(1_000_000)] * 6

    assert httpx.post(upload_url, content=padded(), headers=headers).status_code == 413
    assert files(blobs) == []


@pytest.mark.parametrize(
    ("request_", "status", "code", "pointer"),
    [
        ({"json": {"upload": "upl_1"}}, 415, "WRONG_MEDIA_TYPE", None),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 415, "WRONG_MEDIA_TYPE", None),
        ({"content": b"x", "headers": {**BARE, "content-encoding": "gzip"}}, 415, "CONTENT_ENCODED", None),
        ({"content": b"", "headers": BARE}, 422, "FILE_EMPTY", "/file"),
        ({"files": {"file": ("f", b"")}}, 422, "FILE_EMPTY", "/file"),
        ({"files": {"model": ("f", b"x")}}, 422, "FILE_MISSING", "/file"),
        ({"files": [("file", ("f", b"x")), ("file", ("g", b"y"))]}, 422, "FIELD_REPEATED", "/file"),
        ({"files": {"file": ("f", b"x")}, "data": {"name": "n" * 70_000}}, 422, "FIELD_TOO_LONG", "/name"),
        ({"files": {"file": ("f", b"x")}, "data": {str(i): "" for i in range(20)}}, 422, "TOO_MANY_PARTS", ""),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "MULTIPART_MALFORMED", None),
        (
            {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400, "MULTIPART_MALFORMED", None,
        ),
        (
            {
                "content": FILE_HEAD + "cut off",
                "headers": {"content-type": "multipart/form-data; boundary=b"},
            },
            400, "MULTIPART_MALFORMED", None,
        ),
    ],
)  # fmt: skip
def test_refusals(
    upload_url: str, blobs: Path, request_: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = httpx.post(upload_url, **request_)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert [field["pointer"] for field in problem["errors"]] == ([] if pointer is None else [pointer])
    assert files(blobs) == []


def test_what_is_not_kept_leaves_nothing(upload_url: str, blobs: Path) -> None:
    assert httpx.post(upload_url, content=CONTENT, headers=BARE, params={"refuse": "1"}).json() == {}
    assert files(blobs) == []


@pytest.mark.parametrize(
    "head",
    [
        "content-type: application/octet-stream\r\ncontent-length: 2000000\r\n\r\n",
        "content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n",
        "content-type: multipart/form-data; boundary=b\r\ncontent-length: 2000000\r\n\r\n" + FILE_HEAD,
    ],
)
def test_a_client_that_hangs_up_leaves_nothing(upload_url: str, blobs: Path, head: str) -> None:
    with socket.create_connection(address(upload_url)) as client:
        client.sendall(f"POST /up HTTP/1.1\r\nhost: x\r\n{head}".encode() + CONTENT[:1_200_000])
        wait_for(lambda: files(blobs) and files(blobs)[0].stat().st_size >= 1_000_000)
    wait_for(lambda: files(blobs) == [])
    assert httpx.post(upload_url, content=b"still well", headers=BARE).status_code == 200


def test_a_client_that_falls_silent_is_cut_off(upload_url: str, blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "STALL_S", 0.05)
    with socket.create_connection(address(upload_url)) as client:
        client.sendall(b"POST /up HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert files(blobs) == []


def test_a_client_that_drips_is_cut_off(upload_url: str, blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "STALL_S", 0.5)
    with socket.create_connection(address(upload_url)) as client:
        client.sendall(b"POST /up HTTP/1.1\r\nhost: x\r\ncontent-length: 10000\r\n\r\n")
        client.settimeout(0.05)
        for _ in range(200):
            client.sendall(b"x")
            with suppress(TimeoutError):
                answer = client.recv(65536)
                break
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert files(blobs) == []


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
