"""The OpenAPI document: FastAPI's, with what holds for every route said in one place, and the page that shows it."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.errors import ProblemDocument, documented
from app.http.docs import add_docs
from app.security.openapi import guard

_REF = "#/components/schemas/{model}"

_ANYWHERE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_URI_TOO_LONG,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_WITH_A_BODY = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_INVALID = {422: {**documented(HTTPStatus.UNPROCESSABLE_ENTITY)[422], "description": "A field or parameter is invalid"}}

_REQUEST_ID_HEADER = {
    "X-Request-Id": {
        "description": "What the log calls this request: the name it came with in this header, or one made for it",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    }
}


def describe(server: FastAPI) -> None:
    """Have `server` answer /openapi.json with this document, made once when first asked for, and /docs."""

    def document() -> dict[str, Any]:
        if server.openapi_schema is None:
            server.openapi_schema = _build(server)
        return server.openapi_schema

    server.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way
    add_docs(server)


def _build(server: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=server.title, version=server.version, description=server.description, routes=server.routes
    )
    schemas = document["components"]["schemas"]
    problem = ProblemDocument.model_json_schema(ref_template=_REF)
    schemas.update(problem.pop("$defs", {}))
    schemas["ProblemDocument"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    guard(document)
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete(operation)
    return document


def _complete(operation: dict[str, Any]) -> None:
    """Add what every route may answer; what the route says itself stays."""
    answers = operation["responses"]
    if "application/json" in answers.get("422", {}).get("content", {}):  # FastAPI's own validation error
        del answers["422"]
        answers.update({str(status): answer for status, answer in _INVALID.items()})
    for status, answer in documented(*_foreseen(operation)).items():
        answers.setdefault(str(status), answer)
    for answer in answers.values():
        answer["headers"] = {**_REQUEST_ID_HEADER, **answer.get("headers", {})}


def _foreseen(operation: dict[str, Any]) -> Iterator[HTTPStatus]:
    yield from _ANYWHERE
    if "requestBody" in operation:
        yield from _WITH_A_BODY
