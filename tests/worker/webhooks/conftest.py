"""Fixtures of the tests of sending webhooks: a real receiver, and webhooks with their rows."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.db.base import utc_now
from app.db.database import Database
from app.settings import Settings
from app.webhooks import service
from app.webhooks.schemas import WebhookSpec, WebhookWithSecret
from app.webhooks.tables import DeliveryAttemptRow, DeliveryRow, WebhookRow
from worker.reporter.deliveries import Deliveries
from worker.webhooks.sender import sending


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent and answers as told, by path."""

    url: str = ""
    server: ThreadingHTTPServer | None = None
    taken: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    opened: threading.Event = field(default_factory=threading.Event)

    def say(self, status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"content-length": "0", **headers}.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()

        return answer

    def wait_open(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer once the test says so."""
        self.opened.wait(30)
        self.say(204)(handler)

    def serve_tls(self, certificate: Path, key: Path) -> None:
        """From now on take connections by TLS alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        assert self.server
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    def at(self, path: str) -> list[dict[str, Any]]:
        return [each for each in self.taken if each["path"] == path]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    here = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            here.taken.append({"path": self.path, "headers": headers, "body": body})
            with suppress(OSError):
                here.answers.get(self.path, here.say(204))(self)

        def do_GET(self) -> None:
            here.taken.append({"path": self.path})  # a redirect that was followed

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here.server = server
    here.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield here
    here.opened.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private_targets": True})


class Hooks:
    """Webhooks and their rows, without the API."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, url: str) -> WebhookWithSecret:
        with self.database.write("default") as session:
            view, secret = service.create(session, WebhookSpec(url=url))
            return view.model_copy(update={"secret": secret})

    def ping(self, webhook: WebhookWithSecret) -> str:
        with self.database.write("default") as session:
            return service.ping(session, webhook.id).id

    def find(self, webhook: WebhookWithSecret) -> WebhookRow:
        with self.database.read() as session:
            return session.get_one(WebhookRow, webhook.id)

    def delivery(self, id_: str) -> DeliveryRow:
        with self.database.read() as session:
            return session.get_one(DeliveryRow, id_)

    def tries(self, id_: str) -> list[tuple[int | None, str | None]]:
        query = select(DeliveryAttemptRow).where(DeliveryAttemptRow.delivery_id == id_)
        with self.database.read() as session:
            rows = session.scalars(query.order_by(DeliveryAttemptRow.number))
            return [(row.status, row.error) for row in rows]

    def let_time_pass(self, id_: str) -> None:
        """The wait of a delivery, or the lease of its sender, is over."""
        with self.database.write() as session:
            session.execute(update(DeliveryRow).where(DeliveryRow.id == id_).values(next_at=utc_now()))

    def change(self, webhook: WebhookWithSecret, **columns: Any) -> None:
        with self.database.write() as session:
            session.execute(update(WebhookRow).where(WebhookRow.id == webhook.id).values(columns))


@pytest.fixture
def hooks(bench: Any) -> Hooks:
    return Hooks(bench.database)


@pytest.fixture
def deliveries(settings: Settings) -> Iterator[Deliveries]:
    opened = Deliveries(settings)
    yield opened
    opened.close()


@pytest.fixture
def sender(settings: Settings) -> Iterator[None]:
    with sending(threading.Event(), settings):
        yield
