"""Who acts, for as long as a request is answered. Set by the gate, read where an audit event is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Actor:
    """A key, the request that came with it and the address that it came from. None: the command line, or no key."""

    key_id: str | None = None
    request_id: str | None = None
    address: str | None = None


_NOBODY = Actor()
_actor: ContextVar[Actor] = ContextVar("actor", default=_NOBODY)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """What is done inside is done by `actor`."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def who_acts() -> Actor:
    """Who does what is done now."""
    return _actor.get()
