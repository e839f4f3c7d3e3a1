"""Sends messages to the broker. What they ask for, and whether it is still wanted, the receiver reads from the row."""

import queue
import threading
import time

import structlog
from celery import Celery
from kombu.entity import Exchange
from kombu.entity import Queue as BrokerQueue

from app.contracts.messages import Message, Queue

_LAST_SENDS_S = 3.0
_PAUSE_S = 1.0
"""After a failure messages are dropped for so long: each would wait for its own time-out, and those behind it, too."""

_log = structlog.get_logger(__name__)


def make_celery(broker_url: str) -> Celery:
    """The Celery application both sides share: names of queues, JSON only, no result backend."""
    celery = Celery("slimline", broker=broker_url, backend=None)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_queues=[_declare(queue) for queue in Queue],
        task_default_queue=Queue.CPU.value,
        broker_connection_retry_on_startup=True,
        # A dead broker must not hold a request: the row is committed and the sweeper sends again.
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
        },
        task_publish_retry=False,
    )
    return celery


def _declare(queue: Queue) -> BrokerQueue:
    return BrokerQueue(queue.value, Exchange(queue.value), routing_key=queue.value)


class Dispatcher:
    """Sends messages from a thread of its own, so that no request waits for a broker that is slow or away."""

    def __init__(self, broker_url: str) -> None:
        self._celery = make_celery(broker_url)
        self._away_until = 0.0
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, name="dispatcher", daemon=True)
        self._started = threading.Lock()

    def __call__(self, message: Message) -> None:
        """Have the message sent soon; returns at once. What cannot be sent is dropped: the sweeper sends it again."""
        with self._started:
            if self._sender.ident is None:
                self._sender.start()
        self._waiting.put(message)

    def check(self) -> None:
        """Raise when the broker cannot be reached."""
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and close."""
        if self._sender.ident is not None:
            self._waiting.put(None)
            self._sender.join(_LAST_SENDS_S)
        self._celery.close()

    def _send_all(self) -> None:
        while (message := self._waiting.get()) is not None:
            if time.monotonic() < self._away_until:
                continue
            try:
                self._send(message)
            except Exception as error:  # noqa: BLE001 - any driver's error: the row is committed, the sweeper will send
                _log.warning("message not sent, the sweeper will", task=message.task, id=message.id, error=str(error))
                self._away_until = time.monotonic() + _PAUSE_S

    def _send(self, message: Message) -> None:
        self._celery.send_task(message.task.value, args=[message.id], queue=message.queue.value)
