"""Server-sent events (WHATWG HTML, section 9.2) of one response, as values. Reconnecting is the client's business."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    id: str
    type: str
    created_at: str
    data: dict[str, Any]


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """Events of a stream's lines; comments (keep-alives) and events without data are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                event = json.loads(fields["data"])
                yield Event(event["id"], event["type"], event["created_at"], event["data"])
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in fields:
            value = f"{fields['data']}\n{value}"
        if name:
            fields[name] = value
