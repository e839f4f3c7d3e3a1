"""Waiting for a database that is away, in place of the client, who is told to come back only when it stays away."""

import asyncio
import time
from http import HTTPStatus

import structlog
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db.database import CommitUnknownError
from app.db.patience import AWAY, PAUSE_S, REQUEST_PATIENCE_S
from app.errors import Problem, render

_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})

_log = structlog.get_logger(__name__)


class Patience:
    """Answers 503 only when the database stays away. POSTs wait in `app.idempotency.once`, with what they do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request, again while the database is away, if it has no body and nothing was answered yet."""
        give_up_at = time.monotonic() + (REQUEST_PATIENCE_S if scope.get("method") in _WITHOUT_BODY else 0)
        answer = _Answer(send)
        while True:
            try:
                await self._app(scope, receive, answer.send)
            except (*AWAY, PoolTimeoutError, CommitUnknownError) as error:
                if answer.has_begun:
                    raise
                _log.warning("the database is away", reason=str(error.__cause__ or error))
                if time.monotonic() >= give_up_at:
                    await render(Request(scope), _explain(error))(scope, receive, send)
                    return
                answer.is_done_perhaps |= isinstance(error, CommitUnknownError)  # of a DELETE: nothing else commits
            else:
                return
            await asyncio.sleep(PAUSE_S)


class _Answer:
    """The answer on its way. What was deleted at the first try is not found at the second: that is success."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = self.is_done_perhaps = self._is_replaced = False

    async def send(self, message: Message) -> None:
        self.has_begun = True
        if message["type"] == "http.response.start":
            self._is_replaced = self.is_done_perhaps and message["status"] == HTTPStatus.NOT_FOUND
            if self._is_replaced:
                message = {"type": "http.response.start", "status": HTTPStatus.NO_CONTENT.value, "headers": []}
        elif self._is_replaced:
            message = {"type": "http.response.body"}
        await self._send(message)


def _explain(error: Exception) -> Problem:
    headers = {"Retry-After": "5"}
    if isinstance(error, CommitUnknownError):
        detail = "The line to the database broke at the last moment: whether it was done is not known. Look before you"
        detail += " ask again; with an Idempotency-Key asking again is safe."
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "COMMIT_UNKNOWN", detail, headers=headers)
    detail = "The database cannot be used now. Nothing was done; ask again in a moment."
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "DATABASE_UNREACHABLE", detail, headers=headers)
