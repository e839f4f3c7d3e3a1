"""What every request gets: an id, its trace, safe headers, a log line and a count; and an answer whatever happens."""

import re
import time
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from app import tracing
from app.errors import Problem, defect, render
from app.health.metrics import Metrics
from app.http.headers import protect
from app.tracing import TraceParent

_log = structlog.get_logger("app.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestScope:
    """Gives each request an id (the client's `X-Request-Id` when it is sane), and counts and logs its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else f"req_{ULID()}"
        began = time.perf_counter()
        status: int | None = None

        async def send_finished(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                answered = MutableHeaders(scope=message)
                answered["X-Request-Id"] = request_id
                protect(scope, answered)
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            tracing.span(scope["method"], TraceParent.from_headers(headers.getlist("traceparent"))) as work,
        ):
            try:
                await self._route(scope)(scope, receive, send_finished)
            except Exception:
                _log.exception("defect", path=_printable_path(scope))
                if status is not None:
                    raise  # half an answer is out: only breaking the connection is honest
                await render(Request(scope), defect())(scope, receive, send_finished)
            finally:
                work.name = f"{scope['method']} {_template(scope)}"
                work.attributes["http.response.status_code"] = status or 0
                self._account(scope, status, time.perf_counter() - began)

    def _route(self, scope: Scope) -> ASGIApp:
        # PostgreSQL cannot hold NUL, so nothing here is named with it.
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return render(
                Request(scope), Problem(HTTPStatus.BAD_REQUEST, "NUL_CHARACTER", "The URL has a NUL character.")
            )
        return self._app

    def _account(self, scope: Scope, status: int | None, seconds: float) -> None:
        method, route = scope["method"], _template(scope)
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        # Dashboards poll: only what changes something, or fails, is worth a line to everyone.
        is_notable = method not in _SAFE_METHODS or status is None or status >= HTTPStatus.BAD_REQUEST
        tell = _log.info if is_notable else _log.debug
        tell("request", method=method, path=_printable_path(scope), status=status, seconds=round(seconds, 4))


def _template(scope: Scope) -> str:
    # Not the path: ids in labels would make a series per job.
    return str(getattr(scope.get("route"), "path", "unknown"))


def _printable_path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded: decoded, it could forge a line of the log."""
    sent: bytes = scope.get("raw_path") or scope["path"].encode()
    return sent.decode("ascii", "backslashreplace")[:200]
