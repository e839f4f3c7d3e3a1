"""The connection below HTTP: how large and slow a request's head may be, how long an answer waits for its reader.

uvicorn has no such limits. What is refused here never reaches the application; it is a problem document all the same.
"""

import asyncio
from functools import cache
from http import HTTPStatus
from math import inf
from typing import Any

from starlette.datastructures import MutableHeaders
from ulid import ULID
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import PROBLEM_JSON, Problem, describe
from app.http.headers import protect
from app.settings import Settings

MAX_URL_BYTES = 8 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
LOOK_S = 0.5
"""How often a connection is looked at for what is overdue."""
LINGER_S = 2.0
"""How long a refused client may go on sending: closed at once, it would see a reset in place of the answer."""
SPARE_CONNECTIONS = 64
"""So many above the limit are told so; those beyond them are dropped unheard."""

_ANSWERED_WHEN_FULL = frozenset({b"/healthz", b"/metrics"})

_URL = Problem(HTTPStatus.REQUEST_URI_TOO_LONG, "URL_TOO_LONG", f"The URL is over {MAX_URL_BYTES} bytes.")
_HEAD = Problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "HEADERS_TOO_LARGE",
    f"The headers are more than {MAX_HEADERS}, or over {MAX_HEAD_BYTES} bytes.",
)
_MALFORMED = Problem(HTTPStatus.BAD_REQUEST, "HTTP_MALFORMED", "This is not HTTP/1.1 as RFC 9112 has it.")
_SLOW = Problem(HTTPStatus.REQUEST_TIMEOUT, "HEADERS_STALLED", "The headers did not come in time.")
_FULL = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "SERVER_BUSY",
    "The server has as many connections as it takes (SLIMLINE_HTTP_CONNECTIONS). Try again.",
    headers={"Retry-After": "1"},
)


class _RefusedError(Exception):
    """Leaves the parser from within one of its callbacks."""


@cache
def _read_settings() -> Settings:
    return Settings()


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits. uvicorn makes one per connection, by the name in `server_command`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings = _read_settings()
        self._refusal: Problem | None = None
        self._is_refused = False
        self._in_head, self._head_bytes, self._headers_bytes = True, 0, 0
        # When what the client owes is overdue, in the loop's time.
        self._head_due = self._reading_due = self._closing_due = inf
        self._next_look: asyncio.TimerHandle | None = None

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to watch the connection."""
        super().connection_made(transport)
        above = len(self.connections) - self.settings.http_connections
        if above > SPARE_CONNECTIONS:
            transport.abort()
            return
        self._refusal = _FULL if above > 0 else None
        self._head_due = self.loop.time() + self.settings.http_head_s
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._next_look:
            self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless the client was refused: then what it still sends is thrown away."""
        if self._is_refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
        if self._is_idle() and self._head_due == inf:
            self._head_due = self.loop.time() + self.settings.http_head_s
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_HEAD)

    def pause_writing(self) -> None:
        """The client takes less than is sent."""
        self._reading_due = self.loop.time() + self.settings.http_stall_s
        super().pause_writing()

    def resume_writing(self) -> None:
        """It took most of it."""
        self._reading_due = inf
        super().resume_writing()

    # --- what the parser calls

    def on_message_begin(self) -> None:
        """The first byte of a head, perhaps in the chunk that ended the request before."""
        super().on_message_begin()
        self._head_bytes += 1

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._leave_parser(_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header."""
        super().on_header(name, value)
        self._headers_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._headers_bytes > MAX_HEAD_BYTES:
            self._leave_parser(_HEAD)

    def on_headers_complete(self) -> None:
        """The head is there: the request begins."""
        if self._refusal and self.url not in _ANSWERED_WHEN_FULL:
            self._leave_parser(self._refusal)
        self._in_head, self._headers_bytes = False, 0
        self._head_due = inf
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there: what comes next is another head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    # --- what uvicorn calls

    def on_response_complete(self) -> None:
        """The answer is out: a next head that has begun is what the client owes now."""
        super().on_response_complete()
        if self._is_idle() and self._head_bytes:
            self._head_due = self.loop.time() + self.settings.http_head_s

    def send_400_response(self, msg: str) -> None:
        """The parser gave up, of itself or because a limit was passed."""
        del msg  # uvicorn's words
        self._refuse(self._refusal or _MALFORMED)

    def _unsupported_upgrade_warning(self) -> None:
        """No other protocol is spoken here: an upgrade is ignored, as RFC 9110 allows, and not worth a warning."""

    # --- ours

    def _is_idle(self) -> bool:
        """Whether the server owes nothing."""
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        now = self.loop.time()
        if now > min(self._reading_due, self._closing_due):
            self.transport.abort()
            return
        if now > self._head_due and not self.transport.is_closing():
            self._refuse(_SLOW)
        if self.transport.is_closing() and self._closing_due == inf:
            # What is written is still sent, but not for ever to a client that does not read.
            self._closing_due = now + self.settings.http_stall_s
        self._next_look = self.loop.call_later(LOOK_S, self._look)

    def _leave_parser(self, problem: Problem) -> None:
        self._refusal = problem
        raise _RefusedError

    def _refuse(self, problem: Problem) -> None:
        """Answer with `problem` where an answer can still be told from another's, and close."""
        if self._is_refused:
            return
        self._is_refused, self._head_due = True, inf
        is_about_this = self._is_idle() or (self.cycle.more_body and not self.cycle.response_started)
        if not is_about_this or self.pipeline or (problem is _SLOW and not self._head_bytes):
            self.transport.close()
            return
        if not self._is_idle():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_reading()
        self.transport.write(_to_bytes(problem, self.scheme))
        self.transport.write_eof()
        self._closing_due = self.loop.time() + LINGER_S


def _to_bytes(problem: Problem, scheme: str | None) -> bytes:
    """A whole answer, as it goes over the line."""
    request_id = f"req_{ULID()}"
    body = describe(problem, request_id).model_dump_json().encode()
    headers = MutableHeaders(problem.headers)
    headers.update(
        {
            "X-Request-Id": request_id,
            "Content-Type": PROBLEM_JSON,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
    )
    protect({"scheme": scheme}, headers)
    lines = (b"%s: %s\r\n" % header for header in headers.raw)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (problem.status, problem.status.phrase.encode(), b"".join(lines), body)
