"""What holds for every route: request ids, problem documents, health, metrics, the OpenAPI document."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.context import Context
from app.contracts.recipe import METHODS


def test_a_request_keeps_a_sane_id_and_gets_one_otherwise(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert client.get("/healthz", headers={"x-request-id": "a b"}).headers["x-request-id"].startswith("req_")


def test_nothing_there_and_wrong_method_are_problems(client: httpx.Client) -> None:
    for response, code in ((client.get("/v1/nothing"), "NOT_FOUND"), (client.put("/v1/jobs"), "METHOD_NOT_ALLOWED")):
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == code


def test_a_nul_in_the_url_is_refused(client: httpx.Client) -> None:
    for url in ("/v1/jobs/%00", "/v1/jobs?after=%00"):
        assert (client.get(url).status_code, client.get(url).json()["code"]) == (400, "NUL_CHARACTER")


def test_a_defect_is_told_without_its_trace(server: FastAPI, client: httpx.Client) -> None:
    @server.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    response = client.get("/broken")
    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == response.json()["request_id"]


def test_health(client: httpx.Client) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True), ready.text


def test_not_ready_says_which_part(client: httpx.Client, context: Context) -> None:
    with context.database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "slimline migrate" in response.json()["parts"]["database"]


def test_metrics_count_requests_by_route(client: httpx.Client) -> None:
    client.get("/v1/jobs/job_1")
    text = client.get("/metrics").text
    assert 'slimline_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in text


def test_the_catalogue_has_every_method_with_its_schema(client: httpx.Client) -> None:
    listed = client.get("/v1/methods").json()["data"]
    assert [method["name"] for method in listed] == sorted(METHODS)
    one = client.get("/v1/methods/quantize.static").json()
    assert one in listed
    assert one["uses"] == ["calibrate"]
    assert one["step_schema"]["properties"]["calibrator"]["enum"] == ["auto", "minmax", "percentile", "entropy", "mse"]
    assert client.get("/v1/methods/no.such").json()["code"] == "METHOD_NOT_FOUND"


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def has_example(content: dict[str, Any], schemas: dict[str, Any]) -> bool:
    if not content or {"example", "examples"} & content.keys():
        return bool(content)

    def search(schema: Any, depth: int = 0) -> bool:
        if isinstance(schema, list):
            return any(search(item, depth) for item in schema)
        if not isinstance(schema, dict) or depth > 4:
            return False
        if {"example", "examples"} & schema.keys():
            return True
        target = schemas.get(schema.get("$ref", "").rpartition("/")[2])
        return (
            search(target, depth + 1)
            or any(search(schema.get(key), depth + 1) for key in ("items", "anyOf", "properties"))
            or any(search(value, depth + 1) for value in schema.get("properties", {}).values())
        )

    return search(content.get("schema"))


@pytest.fixture
def document(server: FastAPI) -> dict[str, Any]:
    return server.openapi()


def test_every_operation_is_described_with_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, operation in operations(document):
        assert operation.get("description"), f"{name} has no description"
        good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        contents = list(good.get("content", {}).values())
        assert not contents or any(has_example(content, schemas) for content in contents), f"{name} has no example"
        for sent in operation.get("requestBody", {}).get("content", {}).values():
            assert has_example(sent, schemas), f"{name}: its body has no example"


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status.startswith(("4", "5")) and status != "503":
                assert "application/problem+json" in answer["content"], f"{name} {status}"
