"""Request headers that many routes read: If-None-Match (RFC 9110) and Prefer (RFC 7240)."""

import re


def matches(header: str, etag: str) -> bool:
    """Whether `If-None-Match: header` names `etag`; the comparison is weak, as the RFC asks."""
    return header.strip() == "*" or etag.removeprefix("W/") in {
        candidate.strip().removeprefix("W/") for candidate in header.split(",")
    }


def preferred_wait(header: str | None, most_s: float) -> float:
    """Seconds of `Prefer: wait=N`, at most `most_s`; 0 without one."""
    found = re.search(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])", header or "")
    return min(float(found.group(1)), most_s) if found else 0
