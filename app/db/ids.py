"""New ids: a resource's prefix and a fresh ULID, so that ids sort by the time they were made."""

from typing import Literal

from ulid import ULID

Prefix = Literal["mdl", "dst", "job", "art", "upl", "key", "whk", "dlv", "evt"]


def new_id(prefix: Prefix) -> str:
    """Such as `job_01JD…`: 128 bits, of which 80 are random."""
    return f"{prefix}_{ULID()}"
