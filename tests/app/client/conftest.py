"""A real server without a worker, and what stands between client and server and breaks lines on purpose."""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import uvicorn

from app.client import Client
from app.db.migrate import upgrade
from app.main import create_app
from app.settings import Settings


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Client]:
    # No worker: what is uploaded stays unchecked, which is enough here.
    settings = Settings(data=tmp_path_factory.mktemp("data"), broker_url=broker_url, max_upload_bytes=32 * 1024**2)
    upgrade(settings.database)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as made:
        yield made
    server.should_exit = True
    thread.join(10)


class _BreakingServer:
    """Serves one content with Range, and hangs up after `burst` bytes of each answer."""

    def __init__(self, content: bytes, burst: int) -> None:
        self.content = content
        self.burst = burst
        self.ranges: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.ranges.append(wanted)
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                if start >= len(outer.content):
                    self.send_error(416)
                    return
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(outer.content) - start))
                self.end_headers()
                self.wfile.write(outer.content[start : start + outer.burst])

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def content() -> bytes:
    return bytes(range(256)) * 4096


@pytest.fixture
def breaking_server(content: bytes) -> Iterator[_BreakingServer]:
    server = _BreakingServer(content, burst=len(content))
    yield server
    server.close()


class BadLine:
    """Passes bytes on to a server. `harm` is given the number of the connection, those sent before and the new ones.

    It returns what goes on; None cuts the connection. `deaf` connections hear no answer: the first bytes of one cut it.
    """

    def __init__(self, port: int) -> None:
        self.harm: Callable[[int, int, bytes], bytes | None] = lambda _number, _before, data: data
        self.deaf: set[int] = set()
        self.connections = 0
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                self.connections += 1
                threading.Thread(target=self._join, args=(near, self.connections), daemon=True).start()

    def _join(self, near: socket.socket, number: int) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            near.close()
            return
        threading.Thread(target=self._answer, args=(near, far, number), daemon=True).start()
        before = 0
        with suppress(OSError):
            while data := near.recv(65536):
                passed = self.harm(number, before, data)
                if passed is None:
                    break
                far.sendall(passed)
                before += len(data)
        self._cut(near, far)

    def _answer(self, near: socket.socket, far: socket.socket, number: int) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if number in self.deaf:
                    break
                near.sendall(data)
        self._cut(near, far)

    def _cut(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def bad_line(client: Client) -> Iterator[BadLine]:
    """Before the server of `client`."""
    line = BadLine(int(client.url.rpartition(":")[2]))
    yield line
    line.close()
