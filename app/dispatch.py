"""Sends messages to the broker. What they ask for, and whether it is still wanted, the receiver reads from the row."""

from celery import Celery
from kombu.entity import Queue as BrokerQueue

from app.contracts.messages import Message, Queue

MAX_PRIORITY = 9


def make_celery(broker_url: str) -> Celery:
    """The Celery application both sides share: names of queues, JSON only, no result backend."""
    celery = Celery("slimline", broker=broker_url, backend=None)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_queues=[BrokerQueue(queue.value, max_priority=MAX_PRIORITY) for queue in Queue],
        task_default_queue=Queue.CPU.value,
        broker_connection_retry_on_startup=True,
        # A dead broker must not hold a request: the row is committed and the sweeper sends again.
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "priority_steps": list(range(MAX_PRIORITY + 1)),
            "queue_order_strategy": "priority",
            "sep": ":",
        },
        task_publish_retry=False,
    )
    return celery


class Dispatcher:
    """Sends messages on pooled connections; safe to call from any thread."""

    def __init__(self, broker_url: str) -> None:
        self._celery = make_celery(broker_url)

    def __call__(self, message: Message) -> None:
        """Send. Raises what the broker's driver raises when it cannot be reached."""
        # Redis pops low numbers first, AMQP serves high numbers first.
        redis = self._celery.conf.broker_url.startswith("redis")
        priority = MAX_PRIORITY - message.priority if redis else message.priority
        self._celery.send_task(message.task.value, args=[message.id], queue=message.queue.value, priority=priority)

    def check(self) -> None:
        """Raise when the broker cannot be reached."""
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def close(self) -> None:
        """Close pooled connections."""
        self._celery.close()
