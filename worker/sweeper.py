"""The sweeper's clock: sweeps every few seconds, in a process of its own, so that no long job can hold it up.

Not Celery's beat: that only sends messages, which wait behind hours of work in a busy worker and go nowhere without a
broker. Several sweepers do no harm.
"""

import threading

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.contracts.messages import Queue
from app.dispatch import make_celery
from app.settings import Settings
from worker.clock import WallClock
from worker.reporter import Reporter
from worker.webhooks.sender import sending

_log = structlog.get_logger(__name__)


def sweep_until(stopped: threading.Event, settings: Settings) -> None:
    """Sweep now and then every `settings.sweep_s` seconds, and send webhooks, until `stopped` is set."""
    reporter = Reporter(settings)
    broker = make_celery(settings.broker)
    clock, jump_s = WallClock(reporter.read_clock), 0.0
    try:
        with sending(stopped, settings):
            while not stopped.is_set():
                try:
                    jump_s += clock.take_jump()
                    reporter.sweep(find_drained(broker), jump_s)
                    jump_s = 0.0
                except Exception:  # noqa: BLE001 - this process's edge: jobs, webhooks and blobs hang on it
                    _log.exception("the sweep failed; it is tried again")
                stopped.wait(settings.sweep_s)
    finally:
        broker.close()
        reporter.close()


def find_drained(broker: Celery) -> list[Queue]:
    """Queues that hold no message; none while the broker is away, for nothing could be sent then."""
    try:
        return [queue for queue in Queue if count_messages(broker, queue) == 0]
    except (OperationalError, OSError) as error:
        _log.warning("the broker is away", reason=str(error))
        return []


def count_messages(broker: Celery, queue: Queue) -> int:
    """How many messages wait in a queue of the broker. Raises kombu's OperationalError, OSError."""
    with broker.connection_for_read() as connection:
        try:
            with connection.channel() as channel:
                return int(channel.queue_declare(queue.value, passive=True).message_count)
        except connection.channel_errors:  # there is no such queue: Redis drops empty ones
            return 0
        except connection.connection_errors as error:
            raise OperationalError(str(error)) from error
