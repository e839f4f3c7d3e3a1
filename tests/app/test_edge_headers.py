"""What every answer has: safe headers, a request id; and input that is meant to break the edge, or to come back."""

import json
import re
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

JSON = {"content-type": "application/json"}
JOB = b'{"model": "mdl_01JD3Q4W8Z6T5R2N9B7K1M0XCV", "recipe": [{"method": "quantize.dynamic"}], '
PATHS = ["/healthz", "/v1/jobs", "/v1/nothing", "/openapi.json", "/docs", "/metrics", "/v1/jobs?limit=x", "/%00"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_safe_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == ("no-cache" if path == "/docs" else "no-store")
    assert "strict-transport-security" not in headers
    assert "server" not in headers


def test_a_defect_has_them_too(server: FastAPI) -> None:
    def fail() -> None:
        raise RuntimeError("postgresql://user:hunter2@host/db")

    server.add_api_route("/fail", fail)
    with TestClient(server, raise_server_exceptions=False) as client:
        answer = client.get("/fail")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "hunter2" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_https_is_asked_for_only_where_it_is_there(server: FastAPI) -> None:
    with TestClient(server, base_url="https://testserver") as client:
        assert client.get("/healthz").headers["strict-transport-security"] == "max-age=31536000"


def test_what_has_an_etag_may_be_asked_for_again(client: httpx.Client, make_model: Callable[..., str]) -> None:
    path = f"/v1/models/{make_model()}"
    first = client.get(path)
    assert first.headers["cache-control"] == "private, no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "private, no-cache")


def test_the_page_of_the_api_runs_its_own_script_and_no_other(client: httpx.Client) -> None:
    page = client.get("/docs")
    sources = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert "unsafe" not in sources["script-src"]
    assert sources["script-src"].count("'sha256-") == len(re.findall("<script>", page.text)) == 1
    linked = re.findall(r'(?:src|href)="(https?:[^"]+)"', page.text)
    assert linked
    assert all(url.startswith(sources["script-src"].split()[0]) for url in linked)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"a":' * 900 + b"1" + b"}" * 900, 422),
        (b'{"recipe":' * 300 + b"1" + b"}" * 300, 422),
        (JOB + b'"seed": ' + b"1" * 5000 + b"}", 400),
        (JOB + b'"seed": 1e400}', 422),
        (JOB + b'"priority": NaN}', 422),
        (JOB + b'"targets": {"max_accuracy_drop": NaN}}', 422),
        (JOB + b'"targets": {"max_size_ratio": Infinity}}', 422),
        (JOB + b'"limits": {"run_s": -Infinity}}', 422),
        (JOB + b'"name": "\\ud800"}', 422),
        (JOB + b'"tags": {"\\udfff": "\\ud800"}}', 422),
        (JOB + b'"\\ud800": 1}', 422),
        (JOB + b'"name": "\\u0000"}', 422),
        (JOB + b'"model": "mdl_other"}', 422),  # given twice: the last one counts, here as nearly everywhere
        (b'{"recipe": [{"method": "\\ud800"}]}', 422),
        (b"\xff\xfe\x00", 400),
        (b"", 422),
        (b"null", 422),
    ],
)
def test_hostile_json_is_refused(client: httpx.Client, body: bytes, status: int) -> None:
    answer = client.post("/v1/jobs", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] in ("INVALID_REQUEST", "BODY_NOT_JSON")


def test_an_answer_stays_small_and_says_little_of_what_was_sent(client: httpx.Client) -> None:
    many = json.dumps({"recipe": [{"method": "quantize.dynamic", "x" * 5000: 1}] * 100})
    long = json.dumps({"recipe": [{"method": "<script>" * 5000}]})
    for body in (many, long):
        answer = client.post("/v1/jobs", content=body, headers=JSON)
        assert answer.status_code == 422
        assert len(answer.content) < 32 * 1024
        assert answer.text.count("<script>") <= 20
    path = client.get("/v1/" + "<b>" * 2000)
    assert len(path.content) < 400


def test_control_characters_do_not_come_back(client: httpx.Client) -> None:
    for path in ("/v1/jobs/%1b[2J%0a", "/%1b[2J%0d%0a", "/v1/methods/%e2%80%ae", "/problems/%07"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["detail"].isprintable()


@pytest.mark.parametrize("given", ["a b", "x" * 129, "é", "a\tb", '"', "<b>"])
def test_a_strange_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-Id": given.encode()})
    assert re.fullmatch(r"req_[0-9A-Z]{26}", answer.headers["x-request-id"])


def test_a_405_names_every_method_of_the_path(client: httpx.Client) -> None:
    assert client.patch("/v1/jobs").headers["allow"] == "GET, POST"
    assert client.patch("/v1/jobs/preflight").headers["allow"] == "POST"
    assert client.post("/openapi.json").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "٣"])
def test_a_lying_length_is_no_defect(client: httpx.Client, length: str) -> None:
    answer = client.post("/v1/jobs", content=b"{}", headers={**JSON, "Content-Length": length.encode()})
    assert answer.status_code in (413, 422)
