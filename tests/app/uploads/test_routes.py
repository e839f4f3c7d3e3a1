"""What uploading to any slice keeps, over the real application."""

import hashlib
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.context import Context
from app.contracts.messages import Message, Queue, TaskName
from app.settings import Settings

KINDS = ("models", "datasets")
PREFIX = {"models": "mdl_", "datasets": "dst_"}
TASK = {"models": TaskName.INGEST_MODEL, "datasets": TaskName.INGEST_DATASET}
CONTENT = bytes(range(256)) * 100


def upload(client: httpx.Client, kind: str, **fields: str) -> httpx.Response:
    return client.post(f"/v1/{kind}", files={"file": ("net.v2.onnx", CONTENT)}, data=fields)


def stored(settings: Settings) -> list[Path]:
    return [path for path in Path(settings.storage).rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_is_created(client: httpx.Client, kind: str) -> None:
    answer = upload(client, kind, name="first", tags='{"team": "vision"}')
    body = answer.json()
    assert answer.status_code == 201
    assert body["id"].startswith(PREFIX[kind])
    assert answer.headers["location"] == f"/v1/{kind}/{body['id']}"
    assert (body["name"], body["filename"], body["tags"]) == ("first", "net.v2.onnx", {"team": "vision"})
    assert (body["sha256"], body["size_bytes"]) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert (body["state"], body["problem"]) == ("uploaded", None)
    assert client.get(answer.headers["location"]).json() == body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("params", "headers", "name", "filename"),
    [
        ({}, {}, None, None),
        ({"name": "net.onnx"}, {}, "net.onnx", "net.onnx"),
        ({}, {"content-disposition": 'attachment; filename="a.npz"'}, "a", "a.npz"),
        ({"name": "n"}, {"content-disposition": 'attachment; filename="a.npz"'}, "n", "a.npz"),
    ],
)
def test_a_bare_body_is_named(
    client: httpx.Client, kind: str, params: dict[str, str], headers: dict[str, str], name: str, filename: str
) -> None:
    body = client.post(
        f"/v1/{kind}", content=CONTENT, params=params, headers={"content-type": "application/octet-stream", **headers}
    ).json()
    singular = kind.removesuffix("s")
    assert (body["name"], body["filename"]) == (name or singular, filename or singular)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_body_over_the_json_limit_needs_no_content_type(client: httpx.Client, kind: str) -> None:
    assert client.post(f"/v1/{kind}", content=bytes(2_000_000)).status_code == 201


@pytest.mark.parametrize("kind", KINDS)
def test_checking_is_asked_for_after_the_row_is_there(client: httpx.Client, context: Context, kind: str) -> None:
    sent: list[tuple[Message, int]] = []
    context.database._dispatch = lambda message: sent.append(
        (message, client.get(f"/v1/{kind}/{message.id}").status_code)
    )
    id_ = upload(client, kind).json()["id"]
    assert sent == [(Message(task=TASK[kind], id=id_, queue=Queue.INGEST), 200)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_content_twice_is_two_resources_and_one_blob(
    client: httpx.Client, settings: Settings, kind: str
) -> None:
    first, second = upload(client, kind).json(), upload(client, kind).json()
    assert first["id"] != second["id"]
    assert first["sha256"] == second["sha256"]
    assert len(stored(settings)) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"tags": "{team: vision}"}, "/tags"),
        ({"tags": "[" * 60_000}, "/tags"),
        ({"tags": '{"team": 3}'}, "/tags/team"),
        ({"tags": "[]"}, "/tags"),
        ({"tags": '{"\\ud800": "x"}'}, "/tags"),
        ({"name": "n" * 201}, "/name"),
        ({"name": "a\x00b"}, "/name"),
        ({"nmae": "n"}, "/nmae"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_kept(
    client: httpx.Client, settings: Settings, kind: str, fields: dict[str, str], pointer: str
) -> None:
    answer = upload(client, kind, **fields)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [field["pointer"] for field in answer.json()["errors"]] == [pointer]
    assert stored(settings) == []
    assert client.get(f"/v1/{kind}").json()["data"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_over_the_limit(client: httpx.Client, settings: Settings, kind: str) -> None:
    answer = client.post(f"/v1/{kind}", files={"file": ("big", bytes(settings.max_upload_bytes + 1))})
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")
    assert stored(settings) == []
    assert client.get(f"/v1/{kind}").json()["data"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_json_body_has_to_name_an_upload(client: httpx.Client, kind: str) -> None:
    answer = client.post(f"/v1/{kind}", json={"file": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert [field["pointer"] for field in answer.json()["errors"]] == ["/upload"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_body_is_415(client: httpx.Client, kind: str) -> None:
    answer = client.post(f"/v1/{kind}", content=b"a,b", headers={"content-type": "text/csv"})
    assert (answer.status_code, answer.json()["code"]) == (415, "WRONG_MEDIA_TYPE")
    assert "multipart/form-data" in answer.json()["detail"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_hangs_up_leaves_no_file_and_no_row(
    served: str, client: httpx.Client, settings: Settings, kind: str
) -> None:
    parts = urlsplit(served)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as half:
        head = (
            f"POST /v1/{kind} HTTP/1.1\r\nhost: x\r\ncontent-type: application/zip\r\ncontent-length: 4000000\r\n\r\n"
        )
        half.sendall(head.encode() + bytes(2_500_000))
        wait_for(lambda: stored(settings))
    wait_for(lambda: not stored(settings))
    assert client.get(f"/v1/{kind}").json()["data"] == []
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_pages(client: httpx.Client, kind: str) -> None:
    ids = [upload(client, kind).json()["id"] for _ in range(5)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get(f"/v1/{kind}", params={"limit": 2, **after}).json()
        seen += [item["id"] for item in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["next"]}
    assert seen == ids[::-1]
    assert page["next"] is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "state=eaten", "colour=red"])
def test_a_bad_query_is_422(client: httpx.Client, kind: str, query: str) -> None:
    answer = client.get(f"/v1/{kind}?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == query.partition("=")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_by_state(client: httpx.Client, kind: str) -> None:
    upload(client, kind)
    assert len(client.get(f"/v1/{kind}?state=uploaded").json()["data"]) == 1
    assert client.get(f"/v1/{kind}?state=ready").json()["data"] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("id_", ["{prefix}00000000000000000000000000", "nonsense", "job_1", "%E2%82%AC"])
def test_an_unknown_or_malformed_id_is_404(client: httpx.Client, kind: str, id_: str) -> None:
    answer = client.get(f"/v1/{kind}/{id_.format(prefix=PREFIX[kind])}")
    assert (answer.status_code, answer.json()["code"]) == (404, f"{kind.removesuffix('s').upper()}_NOT_FOUND")


@pytest.mark.parametrize("kind", KINDS)
def test_polling_with_the_etag(client: httpx.Client, kind: str) -> None:
    url = upload(client, kind).headers["location"]
    etag = client.get(url).headers["etag"]
    again = client.get(url, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(url, headers={"if-none-match": '"0"'}).status_code == 200


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process may grow beyond 1 MiB: the kernel refuses the write, as a failing disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024**2, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_refuses_is_503_and_leaves_nothing(client: httpx.Client, settings: Settings) -> None:
    answer = client.post("/v1/models", files={"file": ("m", bytes(5_000_000))})
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNREACHABLE")
    assert stored(settings) == []
    assert client.get("/v1/models").json()["data"] == []
    assert upload(client, "models").status_code == 201
