"""A key in the Authorization header (RFC 6750): how it is read, and how a request without a good one is refused."""

from http import HTTPStatus

from starlette.datastructures import Headers

from app.errors import Problem
from app.security.proof import Refusal
from app.security.rules import Access

_REALM = 'Bearer realm="slimline"'

_WHY = {
    Refusal.INVALID: "This is no key of this service. Send the one that was shown when it was made.",
    Refusal.EXPIRED: "The key, or the secret that a rotation replaced, has expired. Ask an admin for a new one.",
    Refusal.REVOKED: "The key was revoked. Ask an admin for a new one.",
}


def read_token(headers: Headers) -> str | None:
    """The token that was sent, whatever it is; None: no Authorization header. Two headers are no token."""
    sent = headers.getlist("authorization")
    if not sent:
        return None
    scheme, _, token = sent[0].partition(" ")
    return token.strip() if len(sent) == 1 and scheme.lower() == "bearer" else ""


def missing() -> Problem:
    """No key came. RFC 6750: then no error code is given."""
    detail = "This needs a key. Send `Authorization: Bearer slk_…`; an operator makes one with `slimline keys create`."
    return Problem(HTTPStatus.UNAUTHORIZED, "KEY_MISSING", detail, headers={"WWW-Authenticate": _REALM})


def refused(refusal: Refusal) -> Problem:
    """What came opens nothing."""
    challenge = f'{_REALM}, error="invalid_token", error_description="{_WHY[refusal].partition(".")[0]}"'
    return Problem(
        HTTPStatus.UNAUTHORIZED, refusal.value, _WHY[refusal], headers={"WWW-Authenticate": challenge}
    )  # fmt: skip


def insufficient(needed: Access) -> Problem:
    """The key is good, but not for this."""
    if needed is Access.OPERATOR:
        detail = "This tells of all projects, and needs a key of the project `default`."
        return Problem(HTTPStatus.FORBIDDEN, "PROJECT_INSUFFICIENT", detail)
    challenge = f'{_REALM}, error="insufficient_scope", scope="{needed.role}"'
    detail = f"This needs a key of the role `{needed.role}`. Ask an admin of your project for one."
    return Problem(HTTPStatus.FORBIDDEN, "ROLE_INSUFFICIENT", detail, headers={"WWW-Authenticate": challenge})
