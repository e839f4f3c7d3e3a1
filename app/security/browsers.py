"""What a service without a key refuses of browsers: they send for any page that a user looks at, and reach loopback.

Once there is a key nothing is refused here: a page has no key to send.
"""

from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.errors import Problem

_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})  # what they answer is kept from other sites' pages by the browser

_HOW = "Make a key, `slimline keys create NAME --role admin`, and this is no longer asked."


def refuse_other_sites(method: str, headers: Headers, *, any_host: bool) -> None:
    """Raises HOST_REFUSED (403) for a name that someone else may have pointed here (DNS rebinding), unless `any_host`.

    Raises ORIGIN_REFUSED (403) when a page of another origin (RFC 6454) asks for a change.
    """
    host = headers.get("host", "")
    if host and not any_host and not _is_local(host):
        detail = f"A service without a key answers under addresses, `localhost` and names without a dot. {_HOW}"
        raise Problem(HTTPStatus.FORBIDDEN, "HOST_REFUSED", detail)
    origin = headers.get("origin")
    if method not in _HARMLESS and origin is not None and _netloc(origin) != host.lower():
        detail = f"A page of another site asked for a change, and a service without a key makes none for it. {_HOW}"
        raise Problem(HTTPStatus.FORBIDDEN, "ORIGIN_REFUSED", detail)


def _is_local(host: str) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    return "." not in name or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
