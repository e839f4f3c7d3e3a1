"""The OpenAPI document: FastAPI's, with the problem document in place of FastAPI's own validation error."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.errors import PROBLEM_JSON, ProblemDocument

_REF = "#/components/schemas/{model}"


def describe(server: FastAPI) -> None:
    """Have `server` answer /openapi.json with this document, made once when first asked for."""

    def document() -> dict[str, Any]:
        if server.openapi_schema is None:
            server.openapi_schema = _build(server)
        return server.openapi_schema

    server.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


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
    for path in document["paths"].values():
        for operation in path.values():
            _replace_validation_error(operation["responses"])
    return document


def _replace_validation_error(responses: dict[str, Any]) -> None:
    invalid = responses.get("422")
    if invalid and "application/json" in invalid.get("content", {}):
        content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
        responses["422"] = {"description": "A field or parameter cannot be accepted", "content": content}
