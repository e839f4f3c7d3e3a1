"""The keys as the gate sees them: looked up by id, remembered for a moment. Who may do what is `app.security`."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple, TypeVar

import structlog
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.db.base import utc_now
from app.db.database import Database
from app.db.patience import AWAY, PAUSE_S, REQUEST_PATIENCE_S
from app.keys import repository
from app.security.proof import Refusal, StoredKey, prove
from app.security.token import digest, key_id_of

OPEN_FOR_S = 0.1
"""How old the knowledge that there is no key yet may be."""
REMEMBERED_S = 1.0
"""How old the knowledge of a key may be: so long a revoked one may still open."""
NOTED_EVERY = timedelta(minutes=1)
"""How often a key's last use is written down."""

_REMEMBERED_MOST = 10_000

Answer = TypeVar("Answer")
_log = structlog.get_logger(__name__)


class _Remembered(NamedTuple):
    key: StoredKey
    looked_up_at: float


class Keyring:
    """Finds keys for one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._has_keys, self._open_until = False, 0.0
        self._asking = asyncio.Lock()
        # By the digest of the whole token, and only what proved good: what is found here tells nothing of other keys.
        self._remembered: dict[str, _Remembered] = {}
        self._noted: dict[str, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def is_open(self) -> bool:
        """Whether there has never been a key. Once there was one, the answer stays no."""
        if not self._has_keys and time.monotonic() >= self._open_until:
            async with self._asking:
                if not self._has_keys and time.monotonic() >= self._open_until:
                    began = time.monotonic()
                    self._has_keys = await self._ask(repository.has_any_key)
                    self._open_until = began + OPEN_FOR_S
        return not self._has_keys

    def remembers(self, token: str) -> bool:
        """Whether the token was good when it was last looked up."""
        return digest(token) in self._remembered

    async def find(self, token: str) -> StoredKey | Refusal:
        """The key of a token, or why it opens nothing. Waits for a database that is away."""
        key_id, token_sha256 = key_id_of(token), digest(token)
        if key_id is None:
            return Refusal.INVALID
        known = self._remembered.get(token_sha256)
        if known is None or time.monotonic() - known.looked_up_at >= REMEMBERED_S:
            began = time.monotonic()
            stored = await self._ask(lambda connection: repository.look_up(connection, key_id))
            known = _Remembered(stored, began) if stored else None
        refusal = prove(known.key if known else None, token_sha256, utc_now())
        self._remembered.pop(token_sha256, None)
        if known is None or refusal is not None:
            return refusal or Refusal.INVALID
        self._remember(token_sha256, known)
        self._note_use(known.key)
        return known.key

    def _remember(self, token_sha256: str, known: _Remembered) -> None:
        self._remembered[token_sha256] = known
        if len(self._remembered) > _REMEMBERED_MOST:  # the one that was not used for longest is the first
            del self._remembered[next(iter(self._remembered))]

    def _note_use(self, key: StoredKey) -> None:
        now = time.monotonic()
        is_noted = key.last_used_at is not None and utc_now() - key.last_used_at < NOTED_EVERY
        if is_noted or now < self._noted.get(key.id, now):
            return
        self._noted[key.id] = now + NOTED_EVERY.total_seconds()
        noting = asyncio.create_task(run_in_threadpool(self._write_use, key.id))  # no request waits for it
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    def _write_use(self, key_id: str) -> None:
        try:
            with self._database.write() as session:
                repository.note_use(session, key_id, utc_now())
        except AWAY as error:
            _log.warning("last use of a key not noted", key_id=key_id, reason=str(error.__cause__ or error))

    async def _ask(self, query: Callable[[Connection], Answer]) -> Answer:
        give_up_at = time.monotonic() + REQUEST_PATIENCE_S
        while True:
            try:
                return await run_in_threadpool(self._read, query)
            except (*AWAY, PoolTimeoutError):
                if time.monotonic() >= give_up_at:
                    raise
            await asyncio.sleep(PAUSE_S)

    def _read(self, query: Callable[[Connection], Answer]) -> Answer:
        with self._database.connection() as connection:
            return query(connection)
