"""A closed-loop HTTP/1.1 load: N keep-alive connections, each sending its next request when its answer is whole.

Raw protocols instead of a client library: the load must cost less than the server it measures.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import uvloop


@dataclass(frozen=True)
class Load:
    """What a load measured. `latencies_ms` is sorted."""

    seconds: float
    latencies_ms: Sequence[float]
    statuses: frozenset[int]

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in ms below which `share` (0..1) of the answers lie."""
        return self.latencies_ms[min(int(share * len(self.latencies_ms)), len(self.latencies_ms) - 1)]


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, until: float) -> None:
        self._request, self._until = request, until
        self._buffer = b""
        self._sent = 0.0
        self.latencies: list[float] = []
        self.statuses: set[int] = set()
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return
        now = time.perf_counter()
        self.latencies.append((now - self._sent) * 1000)
        self.statuses.add(int(head[9:12]))
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(error)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def build_request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request. Underscores in header names stand for hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def run_load(port: int, request: bytes, *, connections: int, seconds: float) -> Load:
    """Send `request` over and over on each connection for `seconds`."""

    async def run() -> Load:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        opened = [
            (await loop.create_connection(lambda: _Connection(request, began + seconds), "127.0.0.1", port))[1]
            for _ in range(connections)
        ]
        async with asyncio.timeout(seconds + 30):
            errors = [error for error in await asyncio.gather(*(each.done for each in opened)) if error]
        if errors:
            raise ConnectionError(f"{len(errors)} connections broke: {errors[0]}")
        latencies = sorted(latency for each in opened for latency in each.latencies)
        return Load(time.perf_counter() - began, latencies, frozenset().union(*(each.statuses for each in opened)))

    return uvloop.run(run())
