"""Group commit for SQLite: writers commit one by one without waiting for the disk, then wait for one sync together.

With `synchronous=NORMAL`, SQLite in WAL mode never loses consistency, but a power cut may take the last commits.
Syncing the write-ahead log after a commit gives durability back; a sync covers every commit before it.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path


class GroupSync:
    """Calling it returns once a sync that began after the call has ended; calls that wait for one share it."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._is_running = False

    def __call__(self) -> None:
        """Raises OSError when the disk cannot sync."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.wait_for(lambda: self._done >= mine or not self._is_running)
            if self._done >= mine:
                return
            self._is_running = True
            covered = self._asked
        try:
            self._sync()
        except OSError:
            covered = 0  # the others try for themselves
            raise
        finally:
            with self._changed:
                self._is_running = False
                self._done = max(self._done, covered)
                self._changed.notify_all()


def sync_log(database: Path) -> None:
    """Sync the write-ahead log of a SQLite database. Without one, everything is in the database already."""
    try:
        # Its own descriptor: SQLite holds no lock on this file that closing it could drop.
        log = os.open(f"{database}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(log)
    finally:
        os.close(log)
