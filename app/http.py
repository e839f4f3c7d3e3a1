"""What wraps every request: its id, the limit of its body, its log line and its count. No route lives here."""

import re
import time
from collections.abc import Collection
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from app.errors import Problem, defect, render
from app.health.metrics import Metrics

_log = structlog.get_logger("app.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestScope:
    """Gives each request an id (the client's `X-Request-Id` when it is sane), and counts and logs its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else f"req_{ULID()}"
        began = time.perf_counter()
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._route(scope)(scope, receive, send_with_id)
            except Exception:
                _log.exception("defect", path=scope["path"])
                if status is not None:
                    raise  # half an answer is out: only breaking the connection is honest
                await render(Request(scope), defect())(scope, receive, send_with_id)
            finally:
                self._account(scope, status, time.perf_counter() - began)

    def _route(self, scope: Scope) -> ASGIApp:
        # PostgreSQL cannot hold NUL, so nothing here is named with it.
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return render(
                Request(scope), Problem(HTTPStatus.BAD_REQUEST, "NUL_CHARACTER", "The URL has a NUL character.")
            )
        return self._app

    def _account(self, scope: Scope, status: int | None, seconds: float) -> None:
        # The template, not the path: ids in labels would make a series per job.
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.requests.labels(scope["method"], route, status).inc()
        self._metrics.seconds.labels(scope["method"], route).observe(seconds)
        _log.debug("request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 4))


class BodyLimit:
    """Refuses bodies over a limit, by header or by bytes. Paths that take files keep limits of their own."""

    def __init__(self, app: ASGIApp, max_bytes: int, exempt: Collection[str]) -> None:
        self._app, self._max, self._exempt = app, max_bytes, exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request with a `receive` that counts."""
        if scope["type"] != "http" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        taken = 0

        async def receive_counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if max(taken, declared) > self._max:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {self._max} bytes.")
            return message

        length = Headers(scope=scope).get("content-length", "")
        declared = int(length) if length.isdecimal() else 0
        await self._app(scope, receive_counted, send)
