"""How often a key may ask, counted where all API processes see it, and how often an address may send a wrong one."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from app.errors import Problem

WINDOW_S = 60
GUESSES_PER_MINUTE = 60
"""Wrong keys that one address may send a minute."""
AWAY_FOR_S = 5.0
"""How long a store that did not answer is left alone: no request waits for it meanwhile."""

_TIMEOUT_S = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Allowance:
    """What a key may still do: `remaining` of `quota` requests until the window ends in `reset_s` seconds."""

    quota: int
    remaining: int
    reset_s: int
    is_spent: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 has them."""
        return {
            "RateLimit-Policy": f'"default";q={self.quota};w={WINDOW_S}',
            "RateLimit": f'"default";r={self.remaining};t={self.reset_s}',
        }

    def refuse(self) -> Problem:
        """The key has asked too often."""
        detail = f"The key may ask {self.quota} times a minute. Wait {self.reset_s} s. `?wait=` saves polling."
        headers = {**self.headers, "Retry-After": str(self.reset_s)}
        return Problem(HTTPStatus.TOO_MANY_REQUESTS, "RATE_LIMITED", detail, headers=headers)


class RequestLimiter:
    """Counts requests by key in fixed windows. The store is the broker if that speaks Redis, else this process."""

    def __init__(self, broker_url: str) -> None:
        self._store = _open_store(broker_url)
        self._away_until = 0.0

    async def spend(self, key_id: str, per_minute: int) -> Allowance | None:
        """Count a request. None: the store is away, and the request passes."""
        if time.monotonic() < self._away_until:
            return None
        name = RateLimitItemPerMinute(per_minute, namespace="slimline").key_for(key_id)
        try:
            count = await self._store.incr(name, WINDOW_S)
            ends_at = await self._store.get_expiry(name)
        except (StorageError, OSError) as error:
            if not self._away_until:
                _log.warning("requests are not limited: the broker is away", reason=str(error))
            self._away_until = time.monotonic() + AWAY_FOR_S
            return None
        self._away_until = 0.0
        return Allowance(per_minute, max(per_minute - count, 0), _until(ends_at), is_spent=count > per_minute)

    async def close(self) -> None:
        """Close every connection."""
        bridge = getattr(self._store, "bridge", None)
        if isinstance(bridge, RedispyBridge):
            await bridge.storage.aclose()


class GuessLimiter:
    """Counts wrong keys by address, in this process: each of them costs a look into the database."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerMinute(GUESSES_PER_MINUTE)

    async def note(self, address: str) -> None:
        """It sent a key that opens nothing."""
        await self._limiter.hit(self._item, _network(address))

    async def refuse_too_many(self, address: str) -> None:
        """Raises KEY_GUESSING (429) when it did so too often."""
        if await self._limiter.test(self._item, _network(address)):
            return
        ends_at, _ = await self._limiter.get_window_stats(self._item, _network(address))
        wait_s = _until(ends_at)
        detail = f"Too many wrong keys came from your address. Wait {wait_s} s, then send the right one."
        headers = {"Retry-After": str(wait_s)}
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "KEY_GUESSING", detail, headers=headers)


class RefusalFilter:
    """Which refusals of good keys are worth an audit event: a client in a loop must not fill the log."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerMinute(1)

    async def is_news(self, key_id: str, template: str) -> bool:
        """Whether the key was not refused there within the last minute."""
        return await self._limiter.hit(self._item, key_id, template)


def _open_store(broker_url: str) -> RedisStorage | MemoryStorage:
    url = urlsplit(broker_url)
    match url.scheme:
        case "redis" | "rediss":
            place = broker_url
        case "redis+socket":  # kombu's name for a Unix socket
            place = f"redis+unix://{url.path}"
        case _:
            return MemoryStorage()
    return RedisStorage(
        f"async+{place}",
        wrap_exceptions=True,
        implementation="redispy",
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
    )


def _network(address: str) -> str:
    """The address; of IPv6 the network, of which one client has all."""
    try:
        is_v6 = isinstance(ip_address(address), IPv6Address)
    except ValueError:
        return address
    return str(ip_network(f"{address}/64", strict=False)) if is_v6 else address


def _until(ends_at: float) -> int:
    """Whole seconds until a window ends, of which at least one is left."""
    return min(max(math.ceil(ends_at - time.time()), 1), WINDOW_S)
