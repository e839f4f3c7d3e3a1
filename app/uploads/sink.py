"""Where an upload's bytes go: into the store, hashed and written by a thread while the next bytes are on their way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CancelScope
from anyio.to_thread import run_sync

from app.storage import Blob, BlobStore, Incoming
from app.uploads import refusals

BLOCK_BYTES = 1024**2


class Sink:
    """Gathers blocks and hands each to a thread. One is written while one fills: memory stays at two blocks."""

    def __init__(self, incoming: Incoming, max_bytes: int) -> None:
        self.size_bytes = 0
        self._incoming = incoming
        self._max_bytes = max_bytes
        self._block = bytearray()
        self._writing: asyncio.Task[None] | None = None

    def take(self, data: memoryview) -> None:
        """Add bytes, to be written by the next `drain`. Raises BODY_TOO_LARGE."""
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise refusals.too_large(self._max_bytes)
        self._block += data

    async def drain(self) -> None:
        """Start writing once a block is full; waits for the block before it."""
        if len(self._block) >= BLOCK_BYTES:
            await self._start_writing()

    async def commit(self) -> Blob:
        """Write the rest and keep it all, durably."""
        await self._start_writing()
        await self.settle()
        return await run_sync(self._incoming.commit)

    async def settle(self) -> None:
        """Wait until no thread is writing. Raises what the last write raised, once."""
        writing, self._writing = self._writing, None
        if writing:
            await writing

    async def _start_writing(self) -> None:
        await self.settle()
        block, self._block = self._block, bytearray()
        self._writing = asyncio.create_task(run_sync(self._incoming.write, block))


@asynccontextmanager
async def open_sink(store: BlobStore, max_bytes: int) -> AsyncIterator[Sink]:
    """A sink that takes at most `max_bytes`. Without `commit` nothing of it is left after the block."""
    receiving = store.receive()
    sink = Sink(await run_sync(receiving.__enter__), max_bytes)
    try:
        yield sink
    finally:
        with CancelScope(shield=True):
            try:
                await sink.settle()
            finally:
                await run_sync(receiving.__exit__, None, None, None)
