"""How large a body may be and how long it may take. `app.http.protocol` has the limits of heads and connections."""

import asyncio
from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DIGITS = 18  # of the longest Content-Length that is read as a number: an exbibyte is more than any limit


class BodyLimit:
    """Refuses bodies that are too large, by header or by bytes, or too slow.

    Paths that take files (`exempt`) keep limits of their own; one that ends in `/` stands for all below it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_seconds: float, exempt: Collection[str]) -> None:
        self._app, self._exempt = app, exempt
        self._exempt_below = tuple(path for path in exempt if path.endswith("/"))
        self._max_bytes, self._max_seconds = max_bytes, max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request with a `receive` that counts bytes and seconds."""
        if scope["type"] != "http" or scope["path"] in self._exempt or scope["path"].startswith(self._exempt_below):
            await self._app(scope, receive, send)
            return
        await self._app(scope, _Body(receive, scope, self._max_bytes, self._max_seconds).receive, send)


class _Body:
    """The body of one request as it comes in."""

    def __init__(self, receive: Receive, scope: Scope, max_bytes: int, max_seconds: float) -> None:
        self._receive, self._max_bytes, self._max_seconds = receive, max_bytes, max_seconds
        self._bytes = _declared_bytes(scope)
        self._seen = 0
        self._due: float | None = None
        self._is_whole = False

    async def receive(self) -> Message:
        """The next part of the body. Raises an HTTPException (413, 408), which FastAPI lets through."""
        if self._is_whole:  # what comes now is the end of the connection, for which routes may wait long
            return await self._receive()
        message = await self._receive_in_time()
        self._seen += len(message.get("body", b""))
        if max(self._seen, self._bytes) > self._max_bytes:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {self._max_bytes} bytes.")
        self._is_whole = not message.get("more_body", False)
        return message

    async def _receive_in_time(self) -> Message:
        if self._due is None:
            self._due = asyncio.get_running_loop().time() + self._max_seconds
        try:
            async with asyncio.timeout_at(self._due):
                return await self._receive()
        except TimeoutError:
            detail = f"The body did not come within {self._max_seconds:g} s."
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None


def _declared_bytes(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length[:_DIGITS]) if length.isdecimal() else 0
