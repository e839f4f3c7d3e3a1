"""The HTTP edge: what wraps every request, before any route sees it. No route lives here."""

from app.http.limits import BodyLimit
from app.http.scope import RequestScope

__all__ = ["BodyLimit", "RequestScope"]
