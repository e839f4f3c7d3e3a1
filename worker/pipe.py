"""The event pipe from a child to the worker, seen from both ends: one JSON line per event. No processes here."""

import os
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.contracts.events import EngineEvent
from app.contracts.facts import DatasetFacts, ModelFacts

MAX_LINE = 16 * 1024**2
"""Bytes of one event. `finished` has a record per layer and step: a thousand layers under ten steps are 3 MB."""

_READ = 256 * 1024


class Checked(BaseModel):
    """An upload was read and found usable."""

    type: Literal["checked"] = "checked"
    facts: ModelFacts | DatasetFacts


ChildEvent = Annotated[EngineEvent | Checked, Field(discriminator="type")]
CHILD_EVENT: TypeAdapter[ChildEvent] = TypeAdapter(ChildEvent)
Say = Callable[[ChildEvent], None]


class MalformedEventError(Exception):
    """What came over the pipe is no event: a defect of ours."""


def write_event(pipe: int, event: ChildEvent) -> None:
    """Write a line; blocks while the worker is behind."""
    rest = memoryview(event.model_dump_json().encode() + b"\n")
    while rest:
        rest = rest[os.write(pipe, rest) :]


class EventReader:
    """Events out of the chunks that a non-blocking pipe gives."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._line = bytearray()
        self.at_end = False

    def read(self) -> Iterator[ChildEvent]:
        """The events that have come since. Raises MalformedEventError."""
        chunk = os.read(self._pipe, _READ)
        self.at_end = not chunk
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            event = _parse(bytes(self._line + line))
            self._line.clear()
            yield event
        self._line += rest
        if len(self._line) > MAX_LINE:
            raise MalformedEventError(f"an event of more than {MAX_LINE} bytes")


def _parse(line: bytes) -> ChildEvent:
    try:
        return CHILD_EVENT.validate_json(line)
    except ValidationError as error:
        raise MalformedEventError(str(error)) from error
