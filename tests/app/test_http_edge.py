"""The HTTP edge as clients meet it: a real server, and clients that are slow, greedy, broken or hostile."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from app.http import protocol
from app.http.protocol import MAX_HEAD_BYTES, MAX_HEADERS, MAX_URL_BYTES, GuardedProtocol
from app.settings import Settings

HEAD = b"GET /healthz HTTP/1.1\r\nHost: here\r\n"
REQUEST = HEAD + b"\r\n"
SENT_TO_NO_READER = 32 * 1024**2


@contextmanager
def guarding(app: FastAPI, **settings: float) -> Iterator[tuple[str, int]]:
    """Serve `app` as `slimline server` does, with `settings`; gives the address."""

    class Impatient(GuardedProtocol):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            self.settings = Settings(**settings)

    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", http=Impatient, ws="none", timeout_graceful_shutdown=1
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_in_the_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a protocol raises is seen by no client: the loop logs it."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LOOK_S", 0.02)
    monkeypatch.setattr(protocol, "LINGER_S", 0.3)


@pytest.fixture
def address(server: FastAPI) -> Iterator[tuple[str, int]]:
    with guarding(server, http_head_s=0.3, http_body_s=0.3) as found:
        yield found


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    connection.settimeout(20)
    return b"".join(iter(lambda: connection.recv(65536), b""))


def ask(address: tuple[str, int], *pieces: bytes, pause_s: float = 0) -> bytes:
    with socket.create_connection(address) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        return read_all(connection)


def problem(answer: bytes) -> tuple[int, str]:
    """Status and code of a whole problem document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer
    assert b"x-content-type-options: nosniff" in head.lower()
    document = json.loads(body)
    status = int(head.split()[1])
    assert document["status"] == status
    assert document["request_id"].startswith("req_")
    return status, document["code"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /" + b"a" * MAX_URL_BYTES + b" HTTP/1.1\r\n\r\n", (414, "URL_TOO_LONG")),
        (b"GET /" + b"a" * MAX_URL_BYTES * 20, (414, "URL_TOO_LONG")),
        (HEAD + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", (431, "HEADERS_TOO_LARGE")),
        (HEAD + b"a: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n", (431, "HEADERS_TOO_LARGE")),
        (HEAD + b"a: " + b"b" * MAX_HEAD_BYTES * 20, (431, "HEADERS_TOO_LARGE")),
        (HEAD + b"a" * MAX_HEAD_BYTES * 20, (431, "HEADERS_TOO_LARGE")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, "HTTP_MALFORMED")),
        (b"GET /h\xe9 HTTP/1.1\r\nHost: here\r\n\r\n", (400, "HTTP_MALFORMED")),
        (b"CONNECT here:443 HTTP/1.1\r\nHost: here\r\n\r\n", (400, "HTTP_MALFORMED")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, "HTTP_MALFORMED")),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", (400, "HTTP_MALFORMED")),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", (400, "HTTP_MALFORMED")),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", (400, "HTTP_MALFORMED")),
        (HEAD + b"name: a\x00b\r\n\r\n", (400, "HTTP_MALFORMED")),
    ],
)
def test_a_head_beyond_the_limits_is_a_problem_and_the_connection_ends(
    address: tuple[str, int], sent: bytes, expected: tuple[int, str]
) -> None:
    assert problem(ask(address, sent)) == expected


def test_a_head_within_the_limits_is_served(address: tuple[str, int]) -> None:
    url = b"/healthz?" + b"a" * (MAX_URL_BYTES - 100)
    headers = b"".join(b"n%d: %s\r\n" % (i, b"v" * 200) for i in range(MAX_HEADERS - 5))
    answer = ask(address, b"GET " + url + b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n" + headers + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_head_that_dribbles_is_ended(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(HEAD)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012 - the line breaks while it is used
            for _ in range(1000):
                connection.sendall(b"a: b\r\n")
                time.sleep(0.02)
    assert problem(ask(address, HEAD)) == (408, "HEADERS_STALLED")


def test_a_connection_that_says_nothing_is_closed_in_silence(address: tuple[str, int]) -> None:
    assert ask(address) == b""


@pytest.mark.parametrize("more", [HEAD, b"\r\n"])
def test_a_kept_connection_has_as_long_for_the_next_head(address: tuple[str, int], more: bytes) -> None:
    answer = ask(address, REQUEST, more, pause_s=0.05)
    assert answer.startswith(b"HTTP/1.1 200")
    assert problem(answer[answer.rindex(b"HTTP/1.1") :]) == (408, "HEADERS_STALLED")


def test_an_unread_body_does_not_hold_the_connection(address: tuple[str, int]) -> None:
    """The answer comes before the body, of which a byte a day would else keep the connection for ever."""
    sent = b"POST /healthz HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n"
    assert ask(address, sent, b"a", b"b", pause_s=0.05).startswith(b"HTTP/1.1 405")


def test_a_json_body_that_dribbles_is_a_408(server: FastAPI) -> None:
    sent = b"POST /v1/jobs HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with guarding(server_with(server, http_body_s=0.2)) as address:
        assert problem(ask(address, sent, b"{", b" ", pause_s=0.05)) == (408, "BODY_STALLED")


def server_with(server: FastAPI, **settings: float) -> FastAPI:
    """A server like `server` on the same data, but for `settings`."""
    from app.main import create_app

    return create_app(server.state.context.settings.model_copy(update=settings))


def test_a_long_poll_outlives_the_time_for_bodies_and_heads(server: FastAPI, make_model: Callable[..., str]) -> None:
    step = {"method": "quantize.dynamic"}
    with guarding(server_with(server, http_body_s=0.1), http_head_s=0.1) as (host, port):
        jobs = f"http://{host}:{port}/v1/jobs"
        job = httpx.post(jobs, json={"model": make_model(), "recipe": [step]}).json()
        assert httpx.get(f"{jobs}/{job['id']}?wait=0.6").json()["state"] == "queued"


def test_a_partial_next_head_does_not_disturb_the_answer_before_it(server: FastAPI) -> None:
    async def wait(wait_s: float) -> str:
        await asyncio.sleep(wait_s)
        return "waited"

    server.add_api_route("/wait", wait)
    first = b"GET /wait?wait_s=0.5 HTTP/1.1\r\nHost: here\r\n\r\n"
    with guarding(server, http_head_s=0.1) as address:
        answer = ask(address, first + HEAD, b"a: b\r\n", pause_s=0.05)
        assert answer.count(b'"waited"') == 1
    with guarding(server, http_head_s=10) as address, pytest.raises(ConnectionResetError):
        # A head that grows without end behind an unanswered request ends both: no answer could be told apart.
        ask(address, first, HEAD, b"a" * MAX_HEAD_BYTES * 20, pause_s=0.05)


def test_pipelined_requests_are_answered_in_order(address: tuple[str, int]) -> None:
    last = b"GET /problems/not-found HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    answer = ask(address, REQUEST * 3 + last)
    assert answer.count(b"HTTP/1.1 200") == 4
    assert answer.endswith(b"}")
    assert b"NOT_FOUND" in answer[answer.rindex(b"HTTP/1.1") :]


def test_an_upgrade_is_ignored(address: tuple[str, int]) -> None:
    websocket = (
        b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
    )
    assert ask(address, HEAD + websocket + b"\r\n").startswith(b"HTTP/1.1 200")


@pytest.fixture
def endless(server: FastAPI) -> list[str]:
    """Gives `server` a route whose answer has no end; the list says when it was stopped."""
    ended: list[str] = []

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            ended.append("ended")

    server.add_api_route("/endless", lambda: StreamingResponse(chunks()), methods=["GET"])
    return ended


def test_a_client_that_does_not_read_is_cut_off(server: FastAPI, endless: list[str]) -> None:
    with guarding(server, http_stall_s=0.3) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n")
        deadline = time.monotonic() + 20
        while not endless:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_client_that_reads_slowly_is_served(server: FastAPI, endless: list[str]) -> None:
    with guarding(server, http_stall_s=0.5) as address, socket.create_connection(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n")
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            assert connection.recv(65536)
            time.sleep(0.002)
        assert not endless


def test_a_finished_answer_that_nobody_reads_does_not_stay(server: FastAPI) -> None:
    server.add_api_route("/large", lambda: "x" * SENT_TO_NO_READER, methods=["GET"])
    with guarding(server, http_stall_s=0.3) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        time.sleep(1.5)
        assert len(read_all(connection)) < SENT_TO_NO_READER


def test_connections_above_the_limit_are_told_so(server: FastAPI) -> None:
    with guarding(server, http_connections=2) as address:
        held = [socket.create_connection(address) for _ in range(2)]
        for connection in held:  # so that the server has seen both
            connection.sendall(REQUEST)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        answer = ask(address, b"GET /v1/methods HTTP/1.1\r\nHost: here\r\n\r\n")
        assert problem(answer) == (503, "SERVER_BUSY")
        assert b"retry-after: 1" in answer.lower()
        closing = HEAD + b"Connection: close\r\n\r\n"
        assert ask(address, closing).startswith(b"HTTP/1.1 200"), "is it alive? must be answered"
        held[0].close()
        deadline = time.monotonic() + 20
        while not (answer := ask(address, closing.replace(b"/healthz", b"/v1/methods"))).startswith(b"HTTP/1.1 200"):
            assert time.monotonic() < deadline, answer
        held[1].close()
