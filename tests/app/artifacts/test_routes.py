"""Artifacts over the real application: what a download promises."""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.artifacts.content import content_disposition
from app.artifacts.tables import ArtifactRow
from app.context import Context
from app.contracts.job_spec import JobSpec
from app.db.ids import new_id
from app.jobs.tables import JobRow

CONTENT = os.urandom(3 * 1024**2 + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Make = Callable[..., str]


@pytest.fixture
def job_id(context: Context, make_model: Make) -> str:
    model = make_model()
    spec = JobSpec.model_validate({"model": model, "recipe": [{"method": "quantize.float16"}]})
    row = JobRow(id=new_id("job"), spec=spec, priority=5, model_id=model)
    with context.database.write() as session:
        session.add(row)
    return row.id


@pytest.fixture
def make_artifact(context: Context, job_id: str) -> Make:
    """Store bytes and insert their artifact; returns its id."""

    def make(content: bytes = CONTENT, filename: str = "net-slim.onnx") -> str:
        with context.store.receive() as incoming:
            incoming.write(content)
            blob = incoming.commit()
        row = ArtifactRow(
            id=new_id("art"), job_id=job_id, format="onnx", filename=filename,
            sha256=blob.sha256, size_bytes=blob.size_bytes,
        )  # fmt: skip
        with context.database.write() as session:
            session.add(row)
        return row.id

    return make


@pytest.fixture
def url(make_artifact: Make) -> str:
    return f"/v1/artifacts/{make_artifact()}/content"


def blob_path(context: Context, sha256: str) -> Path:
    return Path(context.settings.storage) / sha256[:2] / sha256


def test_an_artifact_is_described(client: httpx.Client, make_artifact: Make, job_id: str) -> None:
    id_ = make_artifact()
    body = client.get(f"/v1/artifacts/{id_}").json()
    assert (body["id"], body["job"], body["format"]) == (id_, job_id, "onnx")
    assert (body["sha256"], body["size_bytes"], body["filename"]) == (SHA256, len(CONTENT), "net-slim.onnx")
    assert client.get(body["links"]["content"]).content == CONTENT
    assert client.get("/v1/artifacts", params={"job": job_id}).json()["data"] == [body]
    assert client.get("/v1/artifacts", params={"job": "job_other"}).json()["data"] == []


@pytest.mark.parametrize("path", ["", "/content"])
@pytest.mark.parametrize("id_", ["art_00000000000000000000000000", "art_", "x"])
def test_an_unknown_artifact_is_404(client: httpx.Client, id_: str, path: str) -> None:
    answer = client.get(f"/v1/artifacts/{id_}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "ARTIFACT_NOT_FOUND")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_whole(client: httpx.Client, url: str, method: str) -> None:
    answer = client.request(method, url)
    assert answer.status_code == 200
    assert answer.content == (CONTENT if method == "GET" else b"")
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    promised = {
        "etag": f'"{SHA256}"',
        "repr-digest": f"sha-256=:{digest}:",
        "accept-ranges": "bytes",
        "content-length": str(len(CONTENT)),
        "content-type": "application/octet-stream",
        "content-disposition": 'attachment; filename="net-slim.onnx"',
    }
    assert {name: answer.headers[name] for name in promised} == promised


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("0-99", 0, 100),
        ("1048570-1048590", 1048570, 1048591),
        ("3145728-", 3145728, len(CONTENT)),
        ("-5", len(CONTENT) - 5, len(CONTENT)),
    ],
)
def test_a_part(client: httpx.Client, url: str, wanted: str, start: int, stop: int) -> None:
    answer = client.get(url, headers={"range": f"bytes={wanted}"})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["etag"] == f'"{SHA256}"'


def test_an_interrupted_download_goes_on(client: httpx.Client, url: str) -> None:
    first = client.get(url, headers={"range": "bytes=0-999999"})
    rest = client.get(url, headers={"range": "bytes=1000000-", "if-range": first.headers["etag"]})
    assert rest.status_code == 206
    assert first.content + rest.content == CONTENT


def test_a_part_of_other_content_is_answered_with_the_whole(client: httpx.Client, url: str) -> None:
    answer = client.get(url, headers={"range": "bytes=5-", "if-range": '"older"'})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


def test_several_parts_are_answered_with_the_whole(client: httpx.Client, url: str) -> None:
    assert client.get(url, headers={"range": "bytes=0-1,5-6"}).status_code == 200


def test_a_part_beyond_the_end_is_416(client: httpx.Client, url: str) -> None:
    answer = client.get(url, headers={"range": f"bytes={len(CONTENT)}-"})
    assert (answer.status_code, answer.json()["code"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("named", ['"{sha}"', 'W/"{sha}"', '"a", "{sha}"', "*"])
def test_known_content_is_304(client: httpx.Client, url: str, named: str) -> None:
    answer = client.get(url, headers={"if-none-match": named.format(sha=SHA256)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{SHA256}"')


def test_a_missing_blob_is_our_fault(client: httpx.Client, context: Context, url: str) -> None:
    blob_path(context, SHA256).unlink()
    answer = client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (500, "BLOB_MISSING")


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-9"}])
def test_a_small_damaged_blob_is_a_clear_500(
    client: httpx.Client, context: Context, make_artifact: Make, headers: dict[str, str]
) -> None:
    id_ = make_artifact(b"small but precious")
    path = blob_path(context, hashlib.sha256(b"small but precious").hexdigest())
    path.chmod(0o600)
    path.write_bytes(b"small but damaged!")
    answer = client.get(f"/v1/artifacts/{id_}/content", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (500, "BLOB_CORRUPT")


def test_a_large_damaged_blob_never_arrives_whole(context: Context, url: str, served: str) -> None:
    path = blob_path(context, SHA256)
    path.chmod(0o600)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(httpx.RemoteProtocolError), httpx.stream("GET", served + url) as answer:
        read_all(answer.iter_bytes())


def read_all(chunks: Iterator[bytes]) -> None:
    for _ in chunks:
        pass


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("net.onnx", 'attachment; filename="net.onnx"'),
        ('a"b\\c.onnx', "attachment; filename=\"a_b_c.onnx\"; filename*=UTF-8''a%22b%5Cc.onnx"),
        ("größe.onnx", "attachment; filename=\"gr__e.onnx\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.onnx"),
        ("a;b.onnx", "attachment; filename=\"a_b.onnx\"; filename*=UTF-8''a%3Bb.onnx"),
    ],
)
def test_filenames(filename: str, header: str) -> None:
    assert content_disposition(filename) == header
