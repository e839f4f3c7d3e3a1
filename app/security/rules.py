"""What every route needs, as one table. A route that is not in it keeps the server from being made."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from http import HTTPMethod
from re import Pattern

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path

from app.identity import DEFAULT_PROJECT, Principal, Role


class Access(IntEnum):
    """Who may use a route, from all to few."""

    PUBLIC = 0
    READ = 1
    SUBMIT = 2
    ADMIN = 3
    OPERATOR = 4
    """Any key of the project `default`, the operator's: what it tells is of all projects."""

    @property
    def role(self) -> Role | None:
        """The role that it takes at least; None: no key at all."""
        match self:
            case Access.PUBLIC:
                return None
            case Access.OPERATOR:
                return Role.READ
            case _:
                return Role[self.name]

    def admits(self, principal: Principal) -> bool:
        """Whether `principal` may."""
        if self is Access.OPERATOR and principal.project != DEFAULT_PROJECT:
            return False
        return self.role is None or principal.role.covers(self.role)


PUBLIC, READ, SUBMIT, ADMIN, OPERATOR = Access

RULES: Mapping[str, Access] = {
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /openapi.json": PUBLIC,
    "GET /docs": PUBLIC,
    "GET /problems": PUBLIC,
    "GET /problems/{slug}": PUBLIC,
    "GET /metrics": OPERATOR,
    "POST /v1/models": SUBMIT,
    "GET /v1/models": READ,
    "GET /v1/models/{model_id}": READ,
    "GET /v1/models/{model_id}/layers": READ,
    "GET /v1/models/{model_id}/content": READ,
    "DELETE /v1/models/{model_id}": SUBMIT,
    "POST /v1/datasets": SUBMIT,
    "GET /v1/datasets": READ,
    "GET /v1/datasets/{dataset_id}": READ,
    "DELETE /v1/datasets/{dataset_id}": SUBMIT,
    "GET /v1/methods": READ,
    "GET /v1/methods/{method}": READ,
    "POST /v1/jobs/preflight": READ,
    "POST /v1/jobs": SUBMIT,
    "GET /v1/jobs": READ,
    "GET /v1/jobs/{job_id}": READ,
    "DELETE /v1/jobs/{job_id}": SUBMIT,
    "POST /v1/jobs/{job_id}/cancel": SUBMIT,
    "POST /v1/jobs/{job_id}/retry": SUBMIT,
    "GET /v1/jobs/{job_id}/events": READ,
    "GET /v1/jobs/{job_id}/comparison": READ,
    "GET /v1/jobs/{job_id}/layers": READ,
    "GET /v1/artifacts": READ,
    "GET /v1/artifacts/{artifact_id}": READ,
    "GET /v1/artifacts/{artifact_id}/content": READ,
    "DELETE /v1/artifacts/{artifact_id}": SUBMIT,
    "POST /v1/uploads": SUBMIT,
    "OPTIONS /v1/uploads": READ,
    "HEAD /v1/uploads/{upload_id}": READ,
    "POST /v1/uploads/{upload_id}": SUBMIT,
    "PATCH /v1/uploads/{upload_id}": SUBMIT,
    "DELETE /v1/uploads/{upload_id}": SUBMIT,
    "POST /v1/webhooks": ADMIN,
    "GET /v1/webhooks": ADMIN,
    "GET /v1/webhooks/{webhook_id}": ADMIN,
    "DELETE /v1/webhooks/{webhook_id}": ADMIN,
    "POST /v1/webhooks/{webhook_id}/enable": ADMIN,
    "POST /v1/webhooks/{webhook_id}/rotate-secret": ADMIN,
    "POST /v1/webhooks/{webhook_id}/test": ADMIN,
    "GET /v1/webhooks/{webhook_id}/deliveries": ADMIN,
    "GET /v1/webhooks/{webhook_id}/deliveries/{delivery_id}": ADMIN,
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": ADMIN,
    "POST /v1/keys": ADMIN,
    "GET /v1/keys": ADMIN,
    "GET /v1/keys/{key_id}": ADMIN,
    "POST /v1/keys/{key_id}/rotate": ADMIN,
    "DELETE /v1/keys/{key_id}": ADMIN,
    "GET /v1/audit": ADMIN,
}
"""Method and path template -> who may. HEAD needs what GET needs, unless it has a line of its own."""


class Rules:
    """The table, ready to be asked for every request."""

    def __init__(self, table: Mapping[str, Access] = RULES) -> None:
        self._access: dict[str, dict[str, Access]] = {}
        for line, access in table.items():
            method, _, template = line.partition(" ")
            self._access.setdefault(template, {})[method] = access
        self._paths: list[tuple[Pattern[str], str]] = [(compile_path(path)[0], path) for path in self._access]

    def of(self, method: str, template: str) -> Access | None:
        """What a route needs; None: no line says."""
        methods = self._access.get(template, {})
        return methods.get(method, methods.get(HTTPMethod.GET) if method == HTTPMethod.HEAD else None)

    def needed(self, methods: Iterable[str], path: str) -> tuple[Access, str]:
        """What a request needs, and the template of its path. It needs the most that any line it may match asks for.

        What matches none, and will be a 404 or 405, is told to who has any key.
        """
        matching = [template for pattern, template in self._paths if pattern.match(path)]
        found = [
            (access, template)
            for template in matching
            for method in methods
            if (access := self.of(method, template)) is not None
        ]
        return max(found, default=(Access.READ, ""))

    def require_all(self, server: FastAPI) -> None:
        """Raises ValueError that names a route without a rule, or one that no rule can be given, such as a mount."""
        for route in iter_route_contexts(server.routes):
            methods = route.methods or ("a mount or socket at",)
            for method in methods:
                if route.path is None or self.of(method, route.path) is None:
                    message = f"{method} {route.path} has no rule: app/security/rules.py must say who may use it"
                    raise ValueError(message)
