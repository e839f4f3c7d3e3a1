"""Doing a POST once: an answer is kept with what it did, in one transaction, and sent again to who repeats the key."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSet
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from app.context import Context, RequestContext
from app.db.patience import Ledger
from app.errors import Problem
from app.idempotency import repository
from app.idempotency.tables import KeptAnswerRow

MAX_KEY = 255

_KEPT_HEADERS = ("content-type", "etag", "location")

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=MAX_KEY, description="Repeat the request with the same key: it is done once"),
]
Effect = Callable[[Session], Response]


@dataclass(frozen=True)
class Once:
    """Runs what a POST does. Under a key it is run once, whoever asks again gets the first answer."""

    context: Context
    key: str | None
    fingerprint: str

    def __call__(self, effect: Effect, shown: Mapping[str, str] | None = None) -> Response:
        """The answer of `effect`, which runs in a transaction that is tried again while the database is away.

        `shown`, which `effect` may fill, are secrets: fields that the answer gets behind what is kept. Who asks again
        does not get them.

        Raises IDEMPOTENCY_KEY_REUSED (422) for a key that came with another request, IDEMPOTENCY_KEY_IN_USE (409)
        while the first is still being answered. An answer that is a refusal is not kept: nothing was done.
        """
        ledger, project = Ledger(self.context.database, guarded=self.key is not None), self.context.principal.project
        with _claimed(self.context.in_flight, (project, self.key)):
            answer = ledger.write(lambda session: self._answer(session, effect), project)
        return _add(answer, shown) if shown else answer

    def of(self, parts: Iterable[str]) -> "Once":
        """The same for a request whose body was not read: these say what came."""
        return Once(self.context, self.key, _digest(self.fingerprint, *parts))

    async def run(self, effect: Effect, shown: Mapping[str, str] | None = None) -> Response:
        """Call it from a coroutine."""
        return await run_in_threadpool(self, effect, shown)

    def _answer(self, session: Session, effect: Effect) -> Response:
        if self.key is None:
            return effect(session)
        if kept := repository.take(session, self.key, self.fingerprint):
            return _replay(kept, self.fingerprint)
        answer = effect(session)
        headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
        repository.keep(session, self.key, answer.status_code, headers, bytes(answer.body).decode())
        return answer


async def _once(request: Request, context: RequestContext, idempotency_key: IdempotencyKey = None) -> Once:
    body = await request.body() if idempotency_key else b""
    return Once(context, idempotency_key, _of_request(request, hashlib.sha256(body).hexdigest()))


async def _upload_once(request: Request, context: RequestContext, idempotency_key: IdempotencyKey = None) -> Once:
    return Once(context, idempotency_key, _of_request(request))


RequestOnce = Annotated[Once, Depends(_once)]
"""For a POST with a small body or none."""

UploadOnce = Annotated[Once, Depends(_upload_once)]
"""For a POST that streams its body: say with `of` what came."""


def _of_request(request: Request, *parts: str) -> str:
    return _digest(request.method, request.url.path, request.url.query, *parts)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextmanager
def _claimed(in_flight: MutableSet[tuple[str, str]], claim: tuple[str, str | None]) -> Iterator[None]:
    project, key = claim
    if key is None:
        yield
        return
    if (project, key) in in_flight:
        detail = "A request with this Idempotency-Key is still being answered. Ask again in a moment."
        raise Problem(HTTPStatus.CONFLICT, "IDEMPOTENCY_KEY_IN_USE", detail, headers={"Retry-After": "1"})
    in_flight.add((project, key))
    try:
        yield
    finally:
        in_flight.discard((project, key))


def _add(answer: Response, shown: Mapping[str, str]) -> Response:
    answer.body = answer.render(json.dumps({**json.loads(bytes(answer.body)), **shown}))
    answer.headers["Content-Length"] = str(len(answer.body))
    return answer


def _replay(kept: KeptAnswerRow, fingerprint: str) -> Response:
    if kept.fingerprint != fingerprint:
        detail = "This Idempotency-Key came with another request before. Use a new key for a new request."
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", detail)
    return Response(kept.body, kept.status, {**kept.headers, "Idempotent-Replayed": "true"})
