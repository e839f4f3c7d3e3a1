"""A real server without a worker, and a file server that breaks lines on purpose."""

import http.server
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from app.client import Client
from app.db.migrate import upgrade
from app.main import create_app
from app.settings import Settings


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Client]:
    # No worker: what is uploaded stays unchecked, which is enough here.
    settings = Settings(data=tmp_path_factory.mktemp("data"), broker_url=broker_url, max_upload_bytes=10**6)
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
