"""Where an upload's bytes go: written by a thread while the next bytes are on their way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from anyio import CancelScope
from anyio.to_thread import run_sync

from app.errors import Problem
from app.storage import Blob, BlobStore, Incoming
from app.storage.blob import Chunk
from app.uploads import refusals

BLOCK_BYTES = 1024**2


class Sink:
    """Gathers blocks and hands each to a thread. One is written while one fills: memory stays at two blocks."""

    def __init__(self, write: Callable[[Chunk], None], max_bytes: int, too_large: Problem) -> None:
        self.size_bytes = 0
        self._write = write
        self._max_bytes, self._too_large = max_bytes, too_large
        self._block = bytearray()
        self._writing: asyncio.Task[None] | None = None

    def take(self, data: memoryview) -> None:
        """Add bytes, to be written by the next `drain`. Raises `too_large`."""
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise self._too_large
        self._block += data

    async def drain(self) -> None:
        """Start writing once a block is full; waits for the block before it."""
        if len(self._block) >= BLOCK_BYTES:
            await self._start_writing()

    async def flush(self) -> None:
        """Write all that was taken, and wait for it."""
        await self._start_writing()
        await self.settle()

    async def settle(self) -> None:
        """Wait until no thread is writing. Raises what the last write raised, once."""
        writing, self._writing = self._writing, None
        if writing:
            await writing

    async def _start_writing(self) -> None:
        await self.settle()
        block, self._block = self._block, bytearray()
        self._writing = asyncio.create_task(run_sync(self._write, block))


class BlobSink(Sink):
    """Its bytes become a blob."""

    def __init__(self, incoming: Incoming, max_bytes: int) -> None:
        super().__init__(incoming.write, max_bytes, refusals.too_large(max_bytes))
        self._incoming = incoming

    async def commit(self) -> Blob:
        """Write the rest and keep it all, durably."""
        await self.flush()
        return await run_sync(self._incoming.commit)


@asynccontextmanager
async def open_sink(store: BlobStore, max_bytes: int) -> AsyncIterator[BlobSink]:
    """A sink that takes at most `max_bytes`. Without `commit` nothing of it is left after the block."""
    receiving = store.receive()
    sink = BlobSink(await run_sync(receiving.__enter__), max_bytes)
    try:
        yield sink
    finally:
        with CancelScope(shield=True):
            try:
                await sink.settle()
            finally:
                await run_sync(receiving.__exit__, None, None, None)
