"""The gate: who comes in, and as whom. It stands before routing and before a byte of the body is read."""

from collections.abc import Mapping

from fastapi.concurrency import run_in_threadpool
from starlette._utils import get_route_path  # what the router matches: another view of the path would be a hole
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.audit.actor import Actor, acting
from app.audit.repository import record
from app.audit.schemas import Action
from app.context import Context
from app.errors import Problem, render
from app.identity import NOBODY, Principal, Role
from app.keys.keyring import Keyring
from app.security import bearer
from app.security.browsers import refuse_other_sites
from app.security.proof import Refusal, StoredKey
from app.security.rate import GuessLimiter, RefusalFilter, RequestLimiter
from app.security.rules import Access, Rules

STRANGER = Principal(project="", role=Role.READ)
"""Asks for what is public: there is no project of this name, so no row is theirs."""


class Gate:
    """Lets a request in as a principal, or answers it. While there has never been a key, everybody is in."""

    def __init__(self, app: ASGIApp, context: Context, rules: Rules) -> None:
        self._app, self._context, self._rules = app, context, rules
        self._keyring = Keyring(context.database)
        self._requests = RequestLimiter(context.settings.broker)
        self._guesses = GuessLimiter()
        self._refusals = RefusalFilter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request as who sent it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            if scope["type"] == "lifespan":
                await self._requests.close()
            return
        try:
            principal, headers = await self._admit(scope)
        except Problem as refusal:
            await render(Request(scope), refusal)(scope, receive, send)
            return
        scope["principal"] = principal
        with acting(_actor(scope, principal)):
            await self._app(scope, receive, _adding(headers, send) if headers else send)

    async def _admit(self, scope: Scope) -> tuple[Principal, Mapping[str, str]]:
        """Who asks, and the headers that the answer gets for it."""
        access, template = self._rules.needed(_methods(scope), get_route_path(scope))
        if access is Access.PUBLIC:
            return STRANGER, {}
        if await self._keyring.is_open():
            any_host = self._context.settings.insecure_open
            refuse_other_sites(scope["method"], Headers(scope=scope), any_host=any_host)
            return NOBODY, {}
        key = await self._find_key(scope)
        headers = await self._count(key)
        principal = Principal(key.project, Role(key.role), key.id)
        if access.admits(principal):
            return principal, headers
        if await self._refusals.is_news(key.id, template):
            with acting(_actor(scope, principal)):
                await run_in_threadpool(self._record_refusal, principal, f"{scope['method']} {template}")
        refusal = bearer.insufficient(access)
        refusal.headers |= headers
        raise refusal

    async def _find_key(self, scope: Scope) -> StoredKey:
        token = bearer.read_token(Headers(scope=scope))
        if token is None:
            raise bearer.missing()
        if not self._keyring.remembers(token):
            await self._guesses.refuse_too_many(_address(scope))
        found = await self._keyring.find(token)
        if isinstance(found, Refusal):
            await self._guesses.note(_address(scope))
            raise bearer.refused(found)
        return found

    async def _count(self, key: StoredKey) -> Mapping[str, str]:
        own = key.requests_per_minute
        per_minute = self._context.settings.requests_per_minute if own is None else own
        allowance = await self._requests.spend(key.id, per_minute) if per_minute else None
        if allowance and allowance.is_spent:
            raise allowance.refuse()
        return allowance.headers if allowance else {}

    def _record_refusal(self, principal: Principal, target: str) -> None:
        with self._context.database.write(principal.project) as session:
            record(session, Action.ACCESS_REFUSED, target, role=principal.role)


def _methods(scope: Scope) -> set[str]:
    # tus clients behind proxies that know no PATCH name the method in a header.
    named = Headers(scope=scope).getlist("x-http-method-override")
    return {scope["method"], *(name.strip().upper() for name in named)}


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _actor(scope: Scope, principal: Principal) -> Actor:
    return Actor(principal.key_id, scope.get("request_id"), _address(scope) or None)


def _adding(headers: Mapping[str, str], send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers
