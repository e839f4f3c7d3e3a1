"""What the OpenAPI document says of the gate: how a key is sent, which role an operation needs, how it is refused."""

from http import HTTPStatus
from typing import Any

from app.errors import documented
from app.security.rules import Rules

_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key, `slk_…`. `slimline keys create NAME` makes one; before there is one, none is needed.",
}


def guard(document: dict[str, Any]) -> None:
    """Add the security scheme, and to each operation that is not public the role it needs and its refusals."""
    rules = Rules()
    document["components"]["securitySchemes"] = {"key": _SCHEME}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            access = rules.of(method.upper(), path)
            if access is None or access.role is None:
                continue
            operation["security"] = [{"key": [access.role.value]}]
            for status, answer in documented(*_REFUSALS).items():
                operation["responses"].setdefault(str(status), answer)
