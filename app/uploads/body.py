"""A body as it comes: counted, and given up when it comes too slowly. Where the bytes go is not known here."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.errors import Problem
from app.uploads import refusals

SLOWEST = 512
"""Bytes a second that a client must send: one that drips keeps a connection as one does that says nothing."""


async def read_body(request: Request, max_bytes: int, stall_s: float, too_large: Problem) -> AsyncIterator[bytes]:
    """The chunks of the body. Raises `too_large`, before the first byte when the declared length is too much already.

    Raises `InterruptedBody` when the line breaks, or when in `stall_s` seconds of waiting fewer than `SLOWEST` bytes a
    second come. How long who takes the chunks is busy does not count.
    """
    rest = max_bytes
    if int(request.headers.get("content-length", 0)) > rest:
        raise too_large
    stream = request.stream()
    came, waited_s = 0, 0.0
    try:
        while True:
            began = time.monotonic()
            async with asyncio.timeout(stall_s - waited_s):
                chunk = await anext(stream)
            came, waited_s = came + len(chunk), waited_s + time.monotonic() - began
            if came >= SLOWEST * stall_s:
                came, waited_s = 0, 0.0
            rest -= len(chunk)
            if rest < 0:
                raise too_large
            yield chunk
    except StopAsyncIteration:
        return
    except ClientDisconnect:
        raise refusals.hung_up() from None
    except TimeoutError:
        raise refusals.stalled(came, stall_s) from None
