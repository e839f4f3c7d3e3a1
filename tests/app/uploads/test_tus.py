"""Resumable uploads over real connections: what tus 1.0 promises, and how each wrong request is refused."""

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.context import Context
from app.settings import Settings
from app.uploads import piece, service
from app.uploads.tus import part

TUS = {"tus-resumable": "1.0.0"}
PIECE = {**TUS, "content-type": "application/offset+octet-stream"}
CONTENT = bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ABSENT = "/v1/uploads/upl_00000000000000000000000000"


def checksum(content: bytes, algorithm: str = "sha256") -> dict[str, str]:
    digest = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    return {"upload-checksum": f"{algorithm} {digest}"}


@pytest.fixture
def http(served: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served, timeout=30) as opened:
        yield opened


@pytest.fixture
def begin(http: httpx.Client) -> Callable[..., str]:
    """Makes an upload for so many bytes; gives its path."""

    def make(size: int = len(CONTENT), **headers: str) -> str:
        answer = http.post("/v1/uploads", headers={**TUS, "upload-length": str(size), **headers})
        assert answer.status_code == 201, answer.text
        return answer.headers["location"]

    return make


@pytest.fixture
def patch(http: httpx.Client) -> Callable[..., httpx.Response]:
    def send(url: str, content: Any, offset: int = 0, **headers: str) -> httpx.Response:
        return http.patch(url, content=content, headers={**PIECE, "upload-offset": str(offset), **headers})

    return send


def offset_of(http: httpx.Client, url: str) -> int:
    answer = http.head(url, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["upload-offset"])


def lying(settings: Settings) -> list[str]:
    return [path.name for path in service.folder(settings).glob("*")]


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["content-type"] == "application/problem+json"


def test_discovery(http: httpx.Client, settings: Settings) -> None:
    answer = http.options("/v1/uploads")
    assert (answer.status_code, answer.headers["tus-resumable"], answer.headers["tus-version"]) == (
        204, "1.0.0", "1.0.0",
    )  # fmt: skip
    assert {"creation", "creation-with-upload", "termination", "checksum", "expiration"} == {
        *answer.headers["tus-extension"].split(",")
    }
    assert {"sha1", "sha256"} <= {*answer.headers["tus-checksum-algorithm"].split(",")}
    assert answer.headers["tus-max-size"] == str(settings.max_upload_bytes)


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_pieces_become_a_model_or_dataset(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], settings: Settings, kind: str
) -> None:
    name = base64.b64encode("größe.onnx".encode()).decode()
    url = begin(**{"upload-metadata": f"filename {name},is_confidential"})
    for start in range(0, len(CONTENT), 1_000_000):
        content = CONTENT[start : start + 1_000_000]
        answer = patch(url, content, start, **checksum(content))
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(start + len(content)))
        assert parsedate_to_datetime(answer.headers["upload-expires"]).timestamp() > time.time() + 80_000
    head = http.head(url, headers=TUS).headers
    assert (head["upload-offset"], head["upload-length"]) == (str(len(CONTENT)), str(len(CONTENT)))
    assert (head["upload-metadata"], head["cache-control"]) == (f"filename {name},is_confidential", "no-store")
    body = {"upload": url.rpartition("/")[2], "tags": {"team": "vision"}}
    made = http.post(f"/v1/{kind}", json=body).json()
    assert (made["sha256"], made["size_bytes"], made["filename"]) == (SHA256, len(CONTENT), "größe.onnx")
    assert (made["name"], made["tags"]) == ("größe", {"team": "vision"})
    again = http.post(f"/v1/{kind}", json={**body, "name": "again"}).json()
    assert (again["sha256"], again["name"]) == (SHA256, "again")
    assert lying(settings) == []  # it is a blob now


def test_the_first_bytes_may_come_with_the_creation(http: httpx.Client, patch: Callable[..., httpx.Response]) -> None:
    headers = {**PIECE, "upload-length": str(len(CONTENT)), **checksum(CONTENT[:1000], "sha1")}
    answer = http.post("/v1/uploads", content=CONTENT[:1000], headers=headers)
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "1000")
    assert patch(answer.headers["location"], CONTENT[1000:], 1000).headers["upload-offset"] == str(len(CONTENT))


def test_a_creation_under_a_key_is_done_once(http: httpx.Client) -> None:
    headers = {**PIECE, "upload-length": str(len(CONTENT)), "idempotency-key": "one"}
    first = http.post("/v1/uploads", content=CONTENT[:1000], headers=headers)
    second = http.post("/v1/uploads", content=CONTENT[:1000], headers=headers)
    assert second.headers["location"] == first.headers["location"]
    assert (second.headers["upload-offset"], second.headers["idempotent-replayed"]) == ("1000", "true")
    refused(http.post("/v1/uploads", headers={**headers, "upload-length": "7"}), 422, "IDEMPOTENCY_KEY_REUSED")


def test_a_model_of_an_upload_under_a_key_is_made_once(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response]
) -> None:
    url = begin()
    patch(url, CONTENT)
    body, key = {"upload": url.rpartition("/")[2]}, {"idempotency-key": "two"}
    first, second = (http.post("/v1/models", json=body, headers=key) for _ in range(2))
    assert (first.status_code, second.headers["idempotent-replayed"]) == (201, "true")
    assert second.json() == first.json()
    assert len(http.get("/v1/models").json()["data"]) == 1


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5"])
def test_a_damaged_piece_is_dropped_whole(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], algorithm: str
) -> None:
    url = begin()
    assert patch(url, CONTENT[:1000]).status_code == 204
    damaged = b"\0" + CONTENT[1001:]
    refused(patch(url, damaged, 1000, **checksum(CONTENT[1000:], algorithm)), 460, "UPLOAD_CHECKSUM_MISMATCH")
    assert offset_of(http, url) == 1000
    assert patch(url, CONTENT[1000:], 1000, **checksum(CONTENT[1000:], algorithm)).status_code == 204
    assert http.post("/v1/models", json={"upload": url.rpartition("/")[2]}).json()["sha256"] == SHA256


@pytest.mark.parametrize("given", ["crc32 AAAAAA==", "sha256", "sha256 ???", "sha256 AAAA", ""])
def test_a_checksum_that_cannot_be_compared(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], given: str
) -> None:
    url = begin()
    refused(patch(url, CONTENT, **{"upload-checksum": given}), 400, "TUS_HEADER_INVALID")
    assert offset_of(http, url) == 0


@pytest.mark.parametrize("offset", [0, 999, 1001, len(CONTENT)])
def test_another_offset_is_a_conflict(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], offset: int
) -> None:
    url = begin()
    patch(url, CONTENT[:1000])
    answer = patch(url, CONTENT[1000:2000], offset)
    refused(answer, 409, "UPLOAD_OFFSET_CONFLICT")
    assert (answer.headers["upload-offset"], offset_of(http, url)) == ("1000", 1000)


@pytest.mark.parametrize("chunked", [True, False])
def test_more_than_was_declared(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], chunked: bool
) -> None:
    url = begin(1000)
    refused(patch(url, iter([CONTENT]) if chunked else CONTENT), 413, "UPLOAD_OVERLONG")
    assert offset_of(http, url) == 0
    assert patch(url, CONTENT[:1000]).status_code == 204


def test_too_large_to_begin(http: httpx.Client, settings: Settings) -> None:
    headers = {**TUS, "upload-length": str(settings.max_upload_bytes + 1)}
    refused(http.post("/v1/uploads", headers=headers), 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"tus-resumable": "0.2.2"}, 412, "TUS_VERSION_UNSUPPORTED"),
        ({"tus-resumable": ""}, 412, "TUS_VERSION_UNSUPPORTED"),
        ({"content-type": "application/octet-stream"}, 415, "WRONG_MEDIA_TYPE"),
        ({"content-encoding": "gzip"}, 415, "CONTENT_ENCODED"),
        ({"upload-offset": "-1"}, 400, "TUS_HEADER_INVALID"),
        ({"upload-offset": "x"}, 400, "TUS_HEADER_INVALID"),
    ],
)
def test_a_wrong_header(
    http: httpx.Client,
    begin: Callable[..., str],
    patch: Callable[..., httpx.Response],
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    url = begin()
    answer = patch(url, CONTENT, **headers)
    refused(answer, status, code)
    assert offset_of(http, url) == 0
    if status == 412:
        assert answer.headers["tus-version"] == "1.0.0"


@pytest.mark.parametrize(
    "headers",
    [
        {"upload-length": "-1"},
        {"upload-length": "9" * 30},
        {"upload-length": ""},
        {"upload-defer-length": "1"},
        {"upload-length": "5", "upload-metadata": "filename ???"},
        {"upload-length": "5", "upload-metadata": "a QQ==,a QQ=="},
        {"upload-length": "5", "upload-metadata": "a " + "A" * 5000},
    ],
)
def test_a_wrong_creation(http: httpx.Client, headers: dict[str, str]) -> None:
    refused(http.post("/v1/uploads", headers={**TUS, **headers}), 400, "TUS_HEADER_INVALID")


def test_nothing_is_done_for_an_unknown_upload(
    http: httpx.Client, patch: Callable[..., httpx.Response], settings: Settings
) -> None:
    for url in (ABSENT, "/v1/uploads/..%2F..%2Fslimline.db", "/v1/uploads/upl_%E2%82%AC"):
        assert http.head(url, headers=TUS).status_code == 404
        assert patch(url, b"x").status_code == 404
        assert http.delete(url, headers=TUS).status_code == 404
    refused(patch(ABSENT, b"x"), 404, "UPLOAD_NOT_FOUND")
    assert lying(settings) == []


@contextmanager
def half_a_piece(served: str, url: str, sent: bytes) -> Iterator[socket.socket]:
    """A connection on which `sent` came of a whole piece."""
    parts = urlsplit(served)
    head = "".join(f"{name}: {value}\r\n" for name, value in {**PIECE, "upload-offset": "0"}.items())
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as line:
        line.sendall(f"PATCH {url} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(CONTENT)}\r\n{head}\r\n".encode())
        line.sendall(sent)
        yield line


def test_a_broken_line_keeps_what_came(
    http: httpx.Client, served: str, begin: Callable[..., str], patch: Callable[..., httpx.Response]
) -> None:
    url = begin()
    with half_a_piece(served, url, CONTENT[:1_500_000]):
        pass
    wait_for(lambda: offset_of(http, url))
    offset = offset_of(http, url)
    assert 0 < offset <= 1_500_000
    assert patch(url, CONTENT[offset:], offset).status_code == 204
    assert http.post("/v1/models", json={"upload": url.rpartition("/")[2]}).json()["sha256"] == SHA256


def test_a_silent_line_is_cut_and_keeps_what_came(
    http: httpx.Client, served: str, begin: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece, "STALL_S", 0.2)
    url = begin()
    with half_a_piece(served, url, CONTENT[:1000]) as line, line.makefile("rb") as heard:
        answer = heard.read()  # to its end: the server closes the connection
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"UPLOAD_STALLED" in answer
    assert offset_of(http, url) == 1000


def test_of_two_at_once_one_counts(
    http: httpx.Client,
    served: str,
    begin: Callable[..., str],
    patch: Callable[..., httpx.Response],
    settings: Settings,
) -> None:
    url = begin()
    path = service.folder(settings) / url.rpartition("/")[2]
    may_end = threading.Event()
    first: list[httpx.Response] = []

    def body() -> Iterator[bytes]:
        yield CONTENT[:5000]
        may_end.wait(10)
        yield CONTENT[5000:]

    def send() -> None:
        headers = {**PIECE, "upload-offset": "0", "content-length": str(len(CONTENT))}
        first.append(httpx.patch(served + url, content=body(), headers=headers, timeout=30))

    slow = threading.Thread(target=send)
    slow.start()
    wait_for(lambda: is_locked(path))
    threading.Timer(0.5, may_end.set).start()
    second = patch(url, b"\xff" * len(CONTENT))
    slow.join(20)
    assert first[0].status_code == 204
    refused(second, 409, "UPLOAD_OFFSET_CONFLICT")
    assert http.post("/v1/models", json={"upload": url.rpartition("/")[2]}).json()["sha256"] == SHA256


def is_locked(path: Path) -> bool:
    """Whether a request works on the upload."""
    with part.locked_now(path) as found:
        return found is None


def test_who_waits_too_long_for_another_is_told(
    http: httpx.Client,
    begin: Callable[..., str],
    patch: Callable[..., httpx.Response],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part, "WAIT_S", 0.1)
    url = begin()
    with part.locked_now(service.folder(settings) / url.rpartition("/")[2]):
        refused(patch(url, CONTENT), 423, "UPLOAD_BUSY")
        refused(http.delete(url, headers=TUS), 423, "UPLOAD_BUSY")
    assert patch(url, CONTENT).status_code == 204


def test_termination(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], settings: Settings
) -> None:
    url = begin()
    patch(url, CONTENT[:1000])
    assert http.delete(url, headers=TUS).status_code == 204
    refused(patch(url, CONTENT[1000:], 1000), 404, "UPLOAD_NOT_FOUND")
    assert http.head(url, headers=TUS).status_code == 404
    assert lying(settings) == []


def test_what_was_made_of_an_upload_outlives_it(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response]
) -> None:
    url = begin()
    patch(url, CONTENT)
    model = http.post("/v1/models", json={"upload": url.rpartition("/")[2]}).json()
    assert http.delete(url, headers=TUS).status_code == 204
    assert http.get(f"/v1/models/{model['id']}/content").content == CONTENT


def test_the_method_may_be_named_in_a_header_of_a_post(http: httpx.Client, begin: Callable[..., str]) -> None:
    url = begin()
    headers = {**PIECE, "upload-offset": "0", "x-http-method-override": "PATCH"}
    assert http.post(url, content=CONTENT[:9], headers=headers).headers["upload-offset"] == "9"
    assert http.get(url, headers={**TUS, "x-http-method-override": "DELETE"}).status_code == 405
    assert offset_of(http, url) == 9
    refused(http.post(url, headers={**TUS, "x-http-method-override": "PUT"}), 422, "INVALID_REQUEST")
    assert http.post(url, headers={**TUS, "x-http-method-override": "DELETE"}).status_code == 204


def expire(context: Context, url: str) -> None:
    with context.database.write() as session:
        row = service.find(session, url.rpartition("/")[2])
        row.expires_at = row.created_at


def test_an_expired_upload_is_gone_and_is_removed(
    http: httpx.Client,
    begin: Callable[..., str],
    patch: Callable[..., httpx.Response],
    context: Context,
    settings: Settings,
) -> None:
    url, other = begin(), begin()
    patch(url, CONTENT[:1000])
    patch(other, CONTENT[:1000])
    expire(context, url)
    refused(patch(url, CONTENT[1000:], 1000), 410, "UPLOAD_EXPIRED")
    assert http.head(url, headers=TUS).status_code == 410
    body = {"upload": url.rpartition("/")[2]}
    refused_model = http.post("/v1/models", json=body)
    assert (refused_model.status_code, refused_model.json()["code"]) == (422, "UPLOAD_EXPIRED")
    begin()
    wait_for(lambda: http.head(url, headers=TUS).status_code == 404)
    wait_for(lambda: lying(settings) == [other.rpartition("/")[2]])


def test_files_without_an_upload_are_removed_unless_someone_has_them(
    begin: Callable[..., str], settings: Settings
) -> None:
    folder = service.folder(settings)
    folder.mkdir()
    (folder / "upl_lost").write_bytes(b"x")
    (folder / "upl_held").write_bytes(b"x")
    with part.locked_now(folder / "upl_held"):
        begin()
        wait_for(lambda: "upl_lost" not in lying(settings))
        assert "upl_held" in lying(settings)


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_what_cannot_be_made_of_an_upload(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], kind: str
) -> None:
    unfinished, empty = begin(), begin(0)
    patch(unfinished, CONTENT[:1000])
    cases: list[tuple[object, int, str]] = [
        ({"upload": ABSENT.rpartition("/")[2]}, 422, "UPLOAD_NOT_FOUND"),
        ({"upload": unfinished.rpartition("/")[2]}, 422, "UPLOAD_UNFINISHED"),
        ({"upload": empty.rpartition("/")[2]}, 422, "FILE_EMPTY"),
        ({"upload": "../../etc/passwd"}, 422, "INVALID_REQUEST"),
        ({"upload": 3}, 422, "INVALID_REQUEST"),
        ({}, 422, "INVALID_REQUEST"),
        ([], 422, "INVALID_REQUEST"),
    ]
    for body, status, code in cases:
        answer = http.post(f"/v1/{kind}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    broken = http.post(f"/v1/{kind}", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["code"]) == (400, "BODY_NOT_JSON")
    patch(unfinished, CONTENT[1000:], 1000)
    wrong = {"upload": unfinished.rpartition("/")[2], "tags": "{}", "nmae": "n"}
    pointers = {field["pointer"] for field in http.post(f"/v1/{kind}", json=wrong).json()["errors"]}
    assert pointers == {"/tags", "/nmae"}
    assert http.get(f"/v1/{kind}").json()["data"] == []


def test_bytes_that_are_not_on_this_machine_are_not_made_up(
    begin: Callable[..., str], patch: Callable[..., httpx.Response], settings: Settings
) -> None:
    url = begin()
    patch(url, CONTENT[:1000])
    (service.folder(settings) / url.rpartition("/")[2]).unlink()
    refused(patch(url, CONTENT[1000:], 1000), 410, "UPLOAD_PIECES_MISSING")


def test_a_whole_upload_that_could_not_be_kept_is_kept_later(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], settings: Settings
) -> None:
    url, incoming = begin(), Path(settings.storage) / "incoming"
    incoming.parent.mkdir(exist_ok=True)
    incoming.write_bytes(b"a file where the store wants a folder")
    answer = patch(url, CONTENT)
    assert answer.status_code == 503
    assert offset_of(http, url) == len(CONTENT)
    incoming.unlink()
    assert http.post("/v1/models", json={"upload": url.rpartition("/")[2]}).json()["sha256"] == SHA256
    assert lying(settings) == []


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_another_project_finds_nothing(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], bearer: Callable[..., Any]
) -> None:
    url = begin()
    patch(url, CONTENT)
    ours, theirs = bearer("submit"), bearer("admin", project="other")
    assert http.head(url, headers={**TUS, **theirs}).status_code == 404
    refused(patch(url, CONTENT, **theirs), 404, "UPLOAD_NOT_FOUND")
    refused(http.delete(url, headers={**TUS, **theirs}), 404, "UPLOAD_NOT_FOUND")
    body = {"upload": url.rpartition("/")[2]}
    answer = http.post("/v1/models", json=body, headers=theirs)
    assert (answer.status_code, answer.json()["code"]) == (422, "UPLOAD_NOT_FOUND")
    assert http.post("/v1/models", json=body, headers=ours).json()["sha256"] == SHA256


def test_who_may_only_read_writes_nothing(
    http: httpx.Client, begin: Callable[..., str], patch: Callable[..., httpx.Response], bearer: Callable[..., Any]
) -> None:
    url, reader = begin(), bearer("read")
    refused(patch(url, CONTENT, **reader), 403, "ROLE_INSUFFICIENT")
    refused(patch(url, CONTENT), 401, "KEY_MISSING")
    override = {**TUS, **reader, "x-http-method-override": "DELETE"}
    assert http.get(url, headers=override).status_code == 403
    assert http.head(url, headers={**TUS, **reader}).headers["upload-offset"] == "0"
