"""A body as it comes: counted, and given up when the client falls silent. Where the bytes go is not known here."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.errors import Problem
from app.uploads import refusals


async def read_body(request: Request, max_bytes: int, stall_s: float, too_large: Problem) -> AsyncIterator[bytes]:
    """The chunks of the body. Raises `too_large`, before the first byte when the declared length is too much already.

    Raises `InterruptedBody` when the line breaks or no byte comes for `stall_s` seconds.
    """
    rest = max_bytes
    if int(request.headers.get("content-length", 0)) > rest:
        raise too_large
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(stall_s):
                chunk = await anext(stream)
            rest -= len(chunk)
            if rest < 0:
                raise too_large
            yield chunk
    except StopAsyncIteration:
        return
    except ClientDisconnect:
        raise refusals.hung_up() from None
    except TimeoutError:
        raise refusals.stalled(stall_s) from None
