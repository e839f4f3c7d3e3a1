"""A closed-loop HTTP/1.1 load: N keep-alive connections, each sending its next request when its answer is whole.

Loads of several kinds may run at once, each on connections of its own. Raw protocols instead of a client library: the
load must cost less than the server it measures.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
        if not found or not _is_whole(head, body):
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


def _is_whole(head: bytes, body: bytes) -> bool:
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= _content_length(head)


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
    return run_loads(port, {"": (request, connections)}, seconds=seconds)[""]


def run_loads(port: int, kinds: Mapping[str, tuple[bytes, int]], *, seconds: float) -> dict[str, Load]:
    """Send each kind's request over and over on each of its connections, all kinds at once, for `seconds`."""

    async def run() -> dict[str, Load]:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        opened = {
            kind: [
                (await loop.create_connection(partial(_Connection, request, began + seconds), "127.0.0.1", port))[1]
                for _ in range(connections)
            ]
            for kind, (request, connections) in kinds.items()
        }
        every = [each for connections in opened.values() for each in connections]
        async with asyncio.timeout(seconds + 30):
            errors = [error for error in await asyncio.gather(*(each.done for each in every)) if error]
        if errors:
            raise ConnectionError(f"{len(errors)} connections broke: {errors[0]}")
        taken = time.perf_counter() - began
        return {kind: _summarise(connections, taken) for kind, connections in opened.items()}

    return uvloop.run(run())


def _summarise(connections: Sequence[_Connection], seconds: float) -> Load:
    latencies = sorted(latency for each in connections for latency in each.latencies)
    return Load(seconds, latencies, frozenset().union(*(each.statuses for each in connections)))
