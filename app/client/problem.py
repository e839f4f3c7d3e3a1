"""What can go wrong between client and server: a problem document, no server at all, a damaged download."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True)
class FieldError:
    """One bad field: a JSON Pointer into the body that was sent, and what is wrong there."""

    pointer: str
    message: str


class ApiError(Exception):
    """The server refused: its problem document (RFC 9457)."""

    def __init__(self, response: httpx.Response) -> None:
        problem = _read_problem(response)
        self.status = response.status_code
        self.code = str(problem.get("code") or "")
        self.detail = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
        self.request_id = problem.get("request_id") or response.headers.get("x-request-id")
        self.errors: Sequence[FieldError] = [
            FieldError(str(error.get("pointer", "")), str(error.get("message", "")))
            for error in problem.get("errors") or []
        ]
        super().__init__(f"{self.detail} ({self.status} {self.code})")


class ServerUnreachableError(Exception):
    """No server answered at `url`, or it stopped answering."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url


class DownloadDamagedError(Exception):
    """The bytes that came do not have the sha256 the server promised; the file was not kept."""


class FileChangedError(Exception):
    """A file was written to while it was sent, so what came is neither what it was nor what it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} changed while it was sent")


def require_ok(response: httpx.Response) -> httpx.Response:
    """The response, read. Raises ApiError when it is a refusal."""
    if response.is_error:
        response.read()
        raise ApiError(response)
    return response


def _read_problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
