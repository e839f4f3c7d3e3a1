"""One piece of a resumable upload: from a request's body into the upload's file, on the disk, and then counted.

The order makes it safe: bytes are written behind the offset, synced, and only then does the row's offset move. Who dies
in between has written bytes that do not count. The file's lock keeps every other writer out meanwhile.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus

from anyio import CancelScope
from anyio.to_thread import run_sync
from fastapi import Request

from app.context import Context
from app.db.base import utc_now
from app.db.patience import Ledger
from app.errors import Problem
from app.storage import Blob
from app.storage.blob import Chunk
from app.uploads import refusals as bodies
from app.uploads import repository, service
from app.uploads.body import read_body
from app.uploads.sink import Sink
from app.uploads.tables import UploadRow
from app.uploads.tus import refusals
from app.uploads.tus.headers import Checksum
from app.uploads.tus.part import Part, locked

STALL_S = 10.0
"""Who is silent for so long has to ask where the upload stands, and go on: nothing is lost but the connection."""
COUNTED_EVERY_BYTES = 64 * 1024**2
"""A kill in the middle of a long piece costs at most so much."""
PATIENCE_S = 10.0
"""How long the database may be away when bytes are to be counted."""


@asynccontextmanager
async def writing_to(context: Context, upload_id: str) -> AsyncIterator["Growing"]:
    """The upload with its file, which no one else writes to in the block.

    Raises the problems of `service.find`, UPLOAD_BUSY (423), and UPLOAD_PIECES_MISSING (410) where its bytes are not
    on this machine.
    """
    row = await run_sync(_find, context, upload_id)
    async with locked(service.part_path(context.settings, row)) as part:
        try:
            row = await run_sync(_find, context, upload_id)  # who had the lock may have moved or removed it
        except Problem as problem:
            if problem.status == HTTPStatus.NOT_FOUND:
                await run_sync(part.remove)
            raise
        yield Growing(context, row, part)


async def keep_whole(context: Context, upload_id: str) -> Blob:
    """The blob of an upload that is whole. Made here when what made it whole could not: it died, or the store was away.

    Raises the problems of `writing_to`.
    """
    async with writing_to(context, upload_id) as growing:
        return await growing.keep()


def _find(context: Context, upload_id: str) -> UploadRow:
    own = context.principal.project
    return Ledger(context.database).read(lambda session: service.find(session, upload_id), own)


class Growing:
    """An upload that this request alone may add to."""

    def __init__(self, context: Context, row: UploadRow, part: Part) -> None:
        self.row = row
        self._context, self._part = context, part
        self._ledger = Ledger(context.database, PATIENCE_S)

    async def take(self, request: Request, offset: int, checksum: Checksum | None) -> None:
        """Add the body. Without a checksum what came before the line broke counts, with one all of it or nothing.

        Raises UPLOAD_OFFSET_CONFLICT (409), UPLOAD_OVERLONG (413), UPLOAD_CHECKSUM_MISMATCH (460).
        """
        if offset != self.row.offset_bytes:
            raise refusals.wrong_offset(offset, self.row.offset_bytes)
        if self.row.sha256 is None and await run_sync(self._part.size) < offset:
            raise refusals.pieces_missing(offset)
        piece = Piece(self._part, offset, checksum)
        room, overlong = self.row.size_bytes - offset, refusals.overlong(self.row.size_bytes)
        sink = Sink(piece.write, room, overlong)
        try:
            async for chunk in read_body(request, room, STALL_S, overlong):
                sink.take(memoryview(chunk))
                await sink.drain()
                if checksum is None and piece.stop - self.row.offset_bytes >= COUNTED_EVERY_BYTES:
                    await self._count(sink, piece)
            await self._count(sink, piece)
        except bodies.InterruptedBody:
            if checksum is None:
                await self._count(sink, piece)
            raise
        finally:
            with CancelScope(shield=True):  # no thread may write to the file after its lock is gone
                await sink.settle()
        if self.row.offset_bytes == self.row.size_bytes:
            await self.keep()

    async def keep(self) -> Blob:
        """Make a blob of the whole file, once."""
        return await run_sync(self._keep)

    async def remove(self) -> None:
        """Delete the upload. The blob it became stays for those who use it."""
        await run_sync(self._remove)

    async def _count(self, sink: Sink, piece: "Piece") -> None:
        await sink.flush()
        piece.verify()
        with CancelScope(shield=True):  # synced bytes count, even when the server is told to stop meanwhile
            await run_sync(self._advance, piece.stop)

    def _advance(self, to: int) -> None:
        self._part.sync()
        row = self.row
        expires_at = utc_now() + timedelta(seconds=self._context.settings.upload_expiry_s)
        if not self._ledger.write(
            lambda session: repository.advance(session, row.id, row.offset_bytes, to, expires_at), row.project
        ):
            raise refusals.unknown(row.id)  # removed although it was locked: the folder's file system has no locks
        row.offset_bytes, row.expires_at = to, expires_at

    def _keep(self) -> Blob:
        row = self.row
        if row.sha256 is None:
            if self._part.size() < row.size_bytes:
                raise refusals.pieces_missing(row.offset_bytes)
            if row.size_bytes == 0:
                raise bodies.empty_file()
            sha256 = self._context.store.put_file(self._part.path).sha256
            self._ledger.write(lambda session: repository.set_blob(session, row.id, sha256), row.project)
            row.sha256 = sha256
        self._part.remove()
        return Blob(row.sha256, row.size_bytes)

    def _remove(self) -> None:
        self._ledger.write(lambda session: repository.remove(session, self.row.id), self.row.project)
        self._part.remove()


class Piece:
    """Bytes on their way to positions behind the offset, hashed where they have to match a digest."""

    def __init__(self, part: Part, start: int, checksum: Checksum | None) -> None:
        self.stop = start
        self._part = part
        self._wanted = checksum
        self._digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None

    def write(self, chunk: Chunk) -> None:
        """Take the next bytes."""
        if self._digest:
            self._digest.update(chunk)
        self._part.write(self.stop, chunk)
        self.stop += len(chunk)

    def verify(self) -> None:
        """Raises UPLOAD_CHECKSUM_MISMATCH (460)."""
        if self._wanted and self._digest and not hmac.compare_digest(self._wanted.digest, self._digest.digest()):
            raise refusals.damaged(self._wanted.algorithm)
