"""Every error answer is a problem document (RFC 9457): what it looks like, and how exceptions become one."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.contracts.failure import FaultKind, SlimlineError
from app.contracts.recipe import METHODS

PROBLEM_JSON = "application/problem+json"

_MAX_ECHO = 64
"""Characters of its own input that a client is shown in an error."""

_MAX_ERRORS = 50
"""Fields that one answer tells of: a body of a mebibyte can have a hundred thousand bad ones."""


class TusStatus(IntEnum):
    """Statuses that tus 1.0 adds to those of HTTP."""

    CHECKSUM_MISMATCH = 460

    @property
    def phrase(self) -> str:
        """As `HTTPStatus.phrase`."""
        return self.name.replace("_", " ").title()


class FieldError(BaseModel):
    """One bad field."""

    pointer: str = Field(description="JSON Pointer into the body (RFC 6901), or the parameter's name")
    message: str
    code: str | None = None


class ProblemDocument(BaseModel):
    """An error answer."""

    type: str = Field(description="Stable URI path of this kind of problem", examples=["/problems/job-not-found"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["JOB_NOT_FOUND"])
    errors: list[FieldError] = Field(default_factory=list)
    request_id: str


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An error answer on its way out of a service or a route."""

    def __init__(
        self,
        status: HTTPStatus | TusStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers = list(errors), dict(headers or {})


def not_found(kind: str, id_: str) -> Problem:
    """There is no `kind` (model, dataset, job, artifact) with this id."""
    detail = f"There is no {kind} {id_[:_MAX_ECHO]!r}. List them with GET /v1/{kind}s."
    return Problem(HTTPStatus.NOT_FOUND, f"{kind.upper()}_NOT_FOUND", detail)


def unprocessable(pointer: str, code: str, message: str) -> Problem:
    """One field of the body cannot be accepted."""
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, code, message, errors=[FieldError(pointer=pointer, message=message, code=code)]
    )


def install_handlers(app: FastAPI) -> None:
    """Turn every foreseen exception that leaves a route into a problem document. `app.http` answers the others."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(SlimlineError, _on_slimline_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


def documented(*statuses: HTTPStatus | TusStatus) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, for the OpenAPI document."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status.value: {"description": status.phrase, "content": content} for status in statuses}


def defect() -> Problem:
    """What a client is told of an exception no one foresaw: not its text, which may hold secrets."""
    detail = "This is a defect of the server, not of the request. Its log has the request id."
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", detail)


def describe(problem: Problem, request_id: str) -> ProblemDocument:
    """What is said of a problem. Whatever of it came from a client is made printable and short."""
    errors = [
        FieldError(pointer=printable(field.pointer, 300), message=printable(field.message), code=field.code)
        for field in problem.errors[:_MAX_ERRORS]
    ]
    return ProblemDocument(
        type=f"/problems/{problem.code.lower().replace('_', '-')}",
        title=problem.status.phrase,
        status=problem.status,
        detail=printable(problem.detail),
        code=problem.code,
        errors=errors,
        request_id=request_id,
    )


def printable(text: str, most: int = 1000) -> str:
    """`text` in at most `most` characters, control characters and what is no Unicode escaped."""
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in short)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def render(request: Request, problem: Problem) -> Response:
    """The answer for a problem."""
    document = describe(problem, request.scope.get("request_id", ""))
    return JSONResponse(
        document.model_dump(), status_code=problem.status, media_type=PROBLEM_JSON, headers=problem.headers
    )


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return render(request, error)


def _on_slimline_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SlimlineError)
    failure = error.failure
    status = {
        FaultKind.USER: HTTPStatus.UNPROCESSABLE_ENTITY,
        FaultKind.OURS: HTTPStatus.INTERNAL_SERVER_ERROR,
        FaultKind.TRANSIENT: HTTPStatus.SERVICE_UNAVAILABLE,
    }[failure.kind]
    detail = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
    headers = {"Retry-After": "10"} if failure.kind == FaultKind.TRANSIENT else None
    return render(request, Problem(status, failure.code, detail, headers=headers))


def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes | str) and not _says_json(request):
        detail = "The body must be JSON, and must say so: send `content-type: application/json`."
        return render(request, Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "WRONG_MEDIA_TYPE", detail))
    if any(details["type"] == "json_invalid" for details in error.errors()):
        return render(request, _not_json())
    errors = [_field_error(details, error.body) for details in error.errors()]
    detail = "; ".join(f"{field.pointer or 'the body'}: {field.message}" for field in errors[:3])
    return render(request, Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "INVALID_REQUEST", detail, errors=errors))


def _says_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json")


def _not_json() -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "BODY_NOT_JSON", "The body cannot be read as JSON in UTF-8.")


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    match status:
        case HTTPStatus.BAD_REQUEST:  # FastAPI's word for a body that its JSON parser gives up on
            problem = _not_json()
        case HTTPStatus.NOT_FOUND:
            detail = f"There is nothing at {request.url.path[:100]!r}. /docs lists what there is."
            problem = Problem(status, status.name, detail)
        case HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.method[:_MAX_ECHO]} is not possible here."
            problem = Problem(status, status.name, detail, headers={"Allow": _allowed_methods(request, error.headers)})
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            problem = Problem(status, "BODY_TOO_LARGE", str(error.detail))
        case HTTPStatus.REQUEST_TIMEOUT:
            problem = Problem(status, "BODY_STALLED", str(error.detail), headers=error.headers)
        case _:
            problem = Problem(status, status.name, str(error.detail), headers=error.headers)
    return render(request, problem)


def _allowed_methods(request: Request, first: Mapping[str, str] | None) -> str:
    """Every documented one of this path; `first` has those that Starlette names, which are the first route's."""
    template = getattr(request.scope.get("route"), "path", "")
    documented_here = request.app.openapi()["paths"].get(template, {})
    methods = documented_here or (first or {}).get("Allow", "").split(", ")
    return ", ".join(sorted(map(str.upper, methods)))


# pydantic speaks of Python to someone who wrote JSON.
_PLAIN: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "there is no such field",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _field_error(details: Mapping[str, Any], body: Any) -> FieldError:
    place, *path = details["loc"]
    pointer = body_pointer(body, path) if place == "body" else str(path[0] if path else place)
    message = _PLAIN.get(details["type"], details["msg"].removeprefix("Value error, "))
    tag = str(details.get("ctx", {}).get("tag", ""))
    if len(tag) > _MAX_ECHO:  # the only one of pydantic's own messages that repeats what was sent
        message = message.replace(tag, f"{tag[:_MAX_ECHO]}…")
    match path:
        case ["recipe", int(), str(method), _] if details["type"] == "extra_forbidden" and method in METHODS:
            message = f"{method} has no such option; it takes {', '.join(METHODS[method].model_fields)}"
        case ["recipe"] if details["type"] == "list_type":
            message = 'must be a list of steps, such as [{"method": "quantize.dynamic"}]'
    return FieldError(pointer=pointer, message=message, code=details["type"])


def body_pointer(body: Any, path: Sequence[int | str]) -> str:
    """The JSON Pointer of a pydantic location, without the tags that pydantic puts in for members of a union."""
    pointer, here = "", body
    for position, part in enumerate(path):
        inside = part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))
        if inside:
            here = here[part]
        elif position != len(path) - 1 or not isinstance(here, dict):
            continue
        pointer += f"/{str(part).replace('~', '~0').replace('/', '~1')}"
    return pointer
