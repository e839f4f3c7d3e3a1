"""The event stream's grammar."""

import json

from app.client.events import Event, parse_events

PAYLOAD = {"id": "evt_1", "type": "progress", "created_at": "2026-01-01T00:00:00Z", "data": {"fraction": 0.5}}
PROGRESS = Event("evt_1", "progress", "2026-01-01T00:00:00Z", {"fraction": 0.5})


def test_events_and_comments() -> None:
    text = json.dumps(PAYLOAD)
    lines = [": ping", "", "id: evt_1", "event: progress", f"data: {text}", "", "id: evt_2", "", f"data:{text}", ""]
    assert list(parse_events(lines)) == [PROGRESS, PROGRESS]


def test_data_on_several_lines() -> None:
    lines = [f"data: {line}" for line in json.dumps(PAYLOAD, indent=1).splitlines()]
    assert list(parse_events([*lines, ""])) == [PROGRESS]


def test_an_unfinished_event_is_dropped() -> None:
    assert list(parse_events([f"data: {json.dumps(PAYLOAD)}"])) == []
