"""The headers that every answer has for its client's safety. A route that sets one itself is left alone."""

from starlette.datastructures import MutableHeaders
from starlette.types import Scope

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "no-referrer",  # our URLs hold ids
    "Cross-Origin-Resource-Policy": "same-origin",
    # For JSON and files, which load nothing. A page says what it loads by a policy of its own.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_HTTPS_ONLY = "max-age=31536000"


def protect(scope: Scope, headers: MutableHeaders) -> None:
    """Add what `headers`, those of an answer to the request `scope`, do not say yet."""
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    # What can be asked for again by its ETag may be kept by the client, but no answer is for a cache that others share.
    headers.setdefault("Cache-Control", "private, no-cache" if "etag" in headers else "no-store")
    if scope.get("scheme") == "https":
        headers.setdefault("Strict-Transport-Security", _HTTPS_ONLY)
