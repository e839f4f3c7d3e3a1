"""One part kept alive: started on a leash, its output prefixed by its name, restarted with back-off, stopped."""

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from app.up.leash import leashed
from app.up.parts import Part

STEADY_S = 10.0
"""A part that lived so long had started well: its next restart waits the shortest time again."""
DELAY_MIN_S = 0.5
DELAY_MAX_S = 5.0
"""Nobody is served meanwhile, so no longer: to start and fail every five seconds costs little."""
LINE_MAX = 64 * 1024
NAME_WIDTH = 6


def say(name: str, line: str) -> None:
    """Write a log line of part `name` to stderr. A closed terminal must not stop the service."""
    with suppress(OSError):
        sys.stderr.write(f"{name:<{NAME_WIDTH}} | {line}\n")
        sys.stderr.flush()


class Child:
    """A part, its process and its restarts. `failures` counts the deaths in a row that came too early."""

    def __init__(self, part: Part, environment: Mapping[str, str]) -> None:
        self.part = part
        self.failures = 0
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the part and keep it running until `stop`."""
        self._keeper = asyncio.create_task(self._keep())

    async def run_once(self) -> int:
        """Run the part to its end and return its exit status, negative for a signal."""
        # A session of its own: Ctrl-C in the terminal reaches only the parent, which stops the parts in order.
        self._process = await asyncio.create_subprocess_exec(
            *leashed(self.part.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environment),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        pump = asyncio.create_task(_pump(self._process.stdout, self.part.name))
        status = await self._process.wait()
        await asyncio.wait({pump}, timeout=1)  # a grandchild may hold the pipe open
        pump.cancel()
        return status

    async def stop(self) -> None:
        """Ask the part to end, and kill it when its grace is over."""
        self._stopping = True
        self.send(signal.SIGTERM)
        if self._keeper is None:
            return
        if self._process is None or self._process.returncode is not None:
            self._keeper.cancel()  # between two starts: only its pause is left
        done, _ = await asyncio.wait({self._keeper}, timeout=self.part.grace_s)
        if not done:
            say(self.part.name, f"did not stop within {self.part.grace_s:g} s: killed")
            self.send(signal.SIGKILL)
            await asyncio.wait({self._keeper})

    def send(self, signum: signal.Signals) -> None:
        """Signal the process if it runs."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signum)

    async def _keep(self) -> None:
        while True:
            started = time.monotonic()
            status = await self.run_once()
            if self._stopping:
                return
            self.failures = 1 if time.monotonic() - started > STEADY_S else self.failures + 1
            delay = min(DELAY_MIN_S * 2 ** (self.failures - 1), DELAY_MAX_S)
            say(self.part.name, f"{describe_end(status)}; started again in {delay:g} s")
            await asyncio.sleep(delay)


def describe_end(status: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


async def _pump(stream: asyncio.StreamReader, name: str) -> None:
    pending = b""
    while chunk := await stream.read(LINE_MAX):
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > LINE_MAX:
            lines, pending = [*lines, pending], b""
        for line in lines:
            say(name, line.decode(errors="replace"))
    if pending:
        say(name, pending.decode(errors="replace"))
