"""One part of the service as a process that can be killed, with all it started, and started again. No meaning here."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STOP_S = 30


@dataclass
class Program:
    """A command with its environment. Output goes to `log`; `user` runs it when this process is root's."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Call it for one that was started."""
        assert self.process
        return self.process.pid

    def start(self) -> "Program":
        """Start it, again too."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
                user=self.user,
                group=self.user,
                start_new_session=True,
            )
        return self

    def family(self) -> list[psutil.Process]:
        """What it started and what that started, as far as it runs now."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """`kill -9` of it alone. On return it is gone."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)
            assert self.process
            self.process.wait()

    def kill_all(self) -> None:
        """`kill -9` of it and of all it started."""
        family = self.family()
        self.kill()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit status."""
        assert self.process
        if self.is_running:
            self.process.send_signal(signum)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.kill_all()
            self.process.wait()

    def tail(self, size: int = 3000) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""


def wait_until(holds: object, what: str, limit_s: float = 60) -> None:
    """Return once the callable `holds`. Raises TimeoutError naming `what`."""
    assert callable(holds)
    give_up_at = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > give_up_at:
            raise TimeoutError(what)
        time.sleep(0.05)
