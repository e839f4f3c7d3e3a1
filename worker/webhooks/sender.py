"""The sender's loop: takes deliveries that are due and sends many at once, in a thread of its own."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import structlog

from app.settings import Settings
from worker.reporter.deliveries import Deliveries, Delivery
from worker.webhooks.request import send
from worker.webhooks.transport import CheckedTransport

POLL_S = 0.5
"""How often the sender looks for what is due, and so how long an event waits at most when there is little to do."""
MAX_OPEN = 200
"""Requests that one sender has open."""
STOP_S = 3.0
"""How long those get when the sender is to stop; what has no outcome by then is sent again."""
ROW_THREADS = 4
NAME_THREADS = 64

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


@contextmanager
def sending(stopped: threading.Event, settings: Settings) -> Iterator[None]:
    """Deliver webhooks in a thread until `stopped` is set, or the block is left; that waits for the thread's end."""
    thread = threading.Thread(target=lambda: asyncio.run(Sender(settings).run(stopped)), name="webhooks")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class Sender:
    """One loop of requests. Rows and host names have threads of their own: a slow name holds up no row."""

    def __init__(self, settings: Settings) -> None:
        self._deliveries = Deliveries(settings)
        self._transport = CheckedTransport(allow_private=settings.webhook_private_targets)
        self._rows = ThreadPoolExecutor(ROW_THREADS, "webhook-rows")
        self._open: dict[asyncio.Task[None], str] = {}

    async def run(self, stopped: threading.Event) -> None:
        """Send until `stopped` is set."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(NAME_THREADS, "webhook-names"))
        try:
            while not stopped.is_set():
                if not await self._begin_due():
                    await self._pause()
            await self._finish()
        finally:
            await self._transport.aclose()
            self._rows.shutdown()
            self._deliveries.close()

    async def _begin_due(self) -> bool:
        """False: there is nothing more to begin now."""
        open_now, room = Counter(self._open.values()), MAX_OPEN - len(self._open)
        if not room:
            return False
        try:
            taken = await self._at_rows(lambda: self._deliveries.take(open_now, room))
        except Exception:  # noqa: BLE001 - the loop outlives whatever the database does
            _log.exception("deliveries cannot be taken; it is tried again")
            return False
        for delivery in taken:
            task = asyncio.create_task(self._deliver(delivery))
            self._open[task] = delivery.webhook_id
            task.add_done_callback(self._open.pop)
        return bool(taken)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            outcome = await send(delivery, self._transport)
            await self._at_rows(lambda: self._deliveries.settle(delivery, outcome))
        except Exception:  # noqa: BLE001 - the edge of the task; the lease ends and it is sent again
            _log.exception("a delivery failed here", id=delivery.id)

    async def _at_rows(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._rows, work)

    async def _pause(self) -> None:
        """Until a request ends, which makes room, or it is time to look again."""
        if self._open:
            await asyncio.wait(self._open, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(POLL_S)

    async def _finish(self) -> None:
        if self._open:
            _, unfinished = await asyncio.wait(self._open, timeout=STOP_S)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
