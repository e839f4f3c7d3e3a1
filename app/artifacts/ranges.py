"""Which part of a representation a request asks for (RFC 9110, section 14). Pure: headers in, numbers out."""

import re
from collections.abc import Mapping
from http import HTTPStatus

from app.errors import Problem

_ONE_RANGE = re.compile(r"bytes=[ \t]*(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-(?P<suffix>\d{1,18}))[ \t]*", re.ASCII)


def find_range(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """The one range asked for as (start, stop); None: send the whole. Raises RANGE_NOT_SATISFIABLE (416).

    Several ranges, other units and what cannot be read are answered with the whole, as the RFC allows. So is an
    If-Range that does not name `etag`: the client's part is of other content.
    """
    found = _ONE_RANGE.fullmatch(headers.get("range", "").lower())
    if found is None or headers.get("if-range", etag) != etag:
        return None
    if found["suffix"] is not None:
        start, stop = max(0, size - int(found["suffix"])), size
    else:
        start, stop = int(found["first"]), min(int(found["last"] or size), size - 1) + 1
        if found["last"] and int(found["last"]) < start:
            return None
    if start >= size:
        detail = f"The range begins at or after the end: there are {size} bytes."
        told = {"Content-Range": f"bytes */{size}"}
        raise Problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "RANGE_NOT_SATISFIABLE", detail, headers=told)
    return start, stop
