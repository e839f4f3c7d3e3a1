"""The header `traceparent` (W3C Trace Context, level 1 and 2), and a piece of work in a trace. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

_MAX_CHARACTERS = 512
_FIELDS = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True)
class TraceParent:
    """The trace that work belongs to and the span that asked for it, in small hexadecimal digits."""

    trace_id: str
    parent_id: str
    flags: str

    @classmethod
    def parse(cls, header: str | None) -> Self | None:
        """What `header` says, or nothing where it breaks a rule: then, as the standard has it, it does not count."""
        found = _FIELDS.fullmatch(header) if header and len(header) <= _MAX_CHARACTERS else None
        if found is None:
            return None
        version, trace_id, parent_id, flags, more = found.groups()
        is_valid = version != "ff" and not (version == "00" and more) and trace_id.strip("0") and parent_id.strip("0")
        return cls(trace_id, parent_id, flags) if is_valid else None

    @classmethod
    def from_headers(cls, headers: Sequence[str]) -> Self | None:
        """The one header of a request; two contradict each other and do not count."""
        return cls.parse(headers[0].strip(" \t")) if len(headers) == 1 else None

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags}"


@dataclass
class Span:
    """A piece of work in a trace, which can be told more about while it goes on."""

    name: str
    attributes: dict[str, str | int] = field(default_factory=dict)
