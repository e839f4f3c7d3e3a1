"""One `slimline up` per data folder. The kernel drops the lock with its holder, so none is ever stale."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.contracts.failure import SlimlineError


@contextmanager
def claim(data: Path) -> Iterator[None]:
    """Hold the data folder, made if absent. Raises SlimlineError DATA_FOLDER_UNUSABLE or DATA_FOLDER_IN_USE."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "up.lock").open("a+")
    except OSError as refused:
        raise SlimlineError(
            "DATA_FOLDER_UNUSABLE",
            f"{data} cannot be written: {refused.strerror}",
            hint="give a folder of yours with --data",
        ) from refused
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            lock.seek(0)
            raise SlimlineError(
                "DATA_FOLDER_IN_USE",
                f"{data} is in use by another `slimline up`, process {lock.read().strip() or 'unknown'}",
                hint="stop that one first, or give another folder with --data",
            ) from held
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
