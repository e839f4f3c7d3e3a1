"""The Celery application of a worker: which tasks take which messages, and when a message is acknowledged.

`celery -A worker.celery_app worker` looks for an attribute `app` of this module. It is made when it is asked for, so
that importing the module reads no setting and opens nothing.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from celery import Celery, signals
from celery.exceptions import Reject
from celery.worker.request import Request

from app import log
from app.contracts.messages import TaskName
from app.dispatch import make_celery
from app.settings import Settings
from worker.confinement.kernel import hide_from_same_user
from worker.forkserver import ForkServer
from worker.tasks import HandedBackError, Tasks

_WEEK_S = 7 * 24 * 3600


def __getattr__(name: str) -> Celery:
    if name == "app":
        return _default_app()
    raise AttributeError(name)


@cache
def _default_app() -> Celery:
    return make_app(Settings())


def make_app(settings: Settings) -> Celery:
    """An application whose worker runs the tasks. Nothing is connected before the worker starts."""
    celery = make_celery(settings.broker)
    celery.conf.update(
        # Threads, because a pool of daemonic processes could not have children; each thread only watches one child.
        worker_pool="threads",
        worker_concurrency=settings.concurrency,
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_enable_remote_control=False,
        worker_redirect_stdouts=False,
        broker_connection_max_retries=None,
    )
    # Longer than any job runs. A message that comes again all the same finds its row claimed and is dropped.
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, "visibility_timeout": _WEEK_S}
    server = ForkServer()
    tasks = Tasks(settings, server)
    for name, run in {
        TaskName.RUN_JOB: tasks.run_job,
        TaskName.INGEST_MODEL: tasks.ingest_model,
        TaskName.INGEST_DATASET: tasks.ingest_dataset,
    }.items():
        celery.task(name=name.value, Request=_Received)(_shell(run))
    for signal, action in (
        (signals.setup_logging, partial(log.configure, settings)),
        (signals.worker_init, hide_from_same_user),
        (signals.worker_init, tasks.start),
        (signals.worker_shutting_down, tasks.stop),
        (signals.worker_shutdown, tasks.close),
        (signals.worker_shutdown, server.stop),
    ):
        signal.connect(_ignoring(action), weak=False)
    return celery


class _Received(Request):  # type: ignore[misc]  # Celery has no types
    """A message whose acknowledgement, when it fails, has the worker connect anew.

    Celery would log that and go on with a message that counts as unacknowledged for ever. As no more than one may, the
    worker would never take another.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **{**more, "connection_errors": ()})  # those it would only log


def _shell(run: Callable[[str], None]) -> Callable[[str], None]:
    def task(id_: str) -> None:
        try:
            run(id_)
        except HandedBackError:
            raise Reject("this worker stops", requeue=True) from None

    return task


def _ignoring(action: Callable[[], None]) -> Callable[..., None]:
    """A receiver of a Celery signal that needs none of its arguments."""

    def receive(**_: Any) -> None:
        action()

    return receive
