"""Keeping a claim: a thread that renews the lease, so that a slow disk or a large download cannot lose it."""

import threading
from collections.abc import Callable
from typing import Self

import structlog

from worker.supervisor import Command

_log = structlog.get_logger(__name__)


class Lease:
    """Calls `renew` every `every_s` seconds while it is entered; `command` is what it heard last."""

    def __init__(self, renew: Callable[[], Command], every_s: float) -> None:
        self.command = Command.CONTINUE
        self._renew = renew
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self.command = self._renew()
            except Exception:  # noqa: BLE001 - this thread's edge: without a database the lease is lost
                _log.exception("the lease could not be renewed")
                self.command = Command.GIVE_UP
