"""The process tree of `slimline up`: what is started, in which order, until when it is waited for, and how it stops."""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.contracts.failure import FaultKind, SlimlineError
from app.settings import Settings
from app.up import valkey
from app.up.child import Child, say
from app.up.parts import CHECK_QUEUE, JOB_QUEUES, Part, beat_command, migrate_command, server_command, worker_command

HAND_BACK_S = 10.0
"""What a worker gets, after its jobs' last seconds, to hand them back and end."""
EARLY_DEATHS_MAX = 3
"""A part that dies so often before the service was ever ready will not start: say so instead of trying on."""


@dataclass(frozen=True)
class Plan:
    """What to run. `device` cpu hides the GPUs from the worker."""

    settings: Settings
    host: str
    port: int
    workers: int
    device: str

    @property
    def url(self) -> str:
        """Where the service answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def parts(self) -> list[Part]:
        """The parts after the broker, in starting order; they stop in the reverse one."""
        queues = "cpu" if self.device == "cpu" else JOB_QUEUES
        return [
            Part("beat", beat_command(), grace_s=5),
            Part("worker", worker_command(self.workers, queues), self.settings.drain_s + HAND_BACK_S),
            Part("checker", worker_command(1, CHECK_QUEUE), self.settings.drain_s + HAND_BACK_S),
            Part("api", server_command(self.host, self.port), grace_s=8),
        ]


class Tree:
    """The running parts. `run` is the whole life; signals end it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._socket: Path | None = None
        self._environment = _environment(plan)
        self._running: list[Child] = []
        self._stop_asked = asyncio.Event()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Start all, call `on_ready` once the service is, stop at SIGINT or SIGTERM; a second one kills.

        Raises SlimlineError START_FAILED when a part will not start; nothing is left running then.
        """
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, self._on_signal)
        life = asyncio.create_task(self._live(on_ready))
        stop = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait({life, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            life.cancel()
            await self._stop_all()
        if life.done() and not life.cancelled():
            life.result()

    async def _live(self, on_ready: Callable[[], None]) -> None:
        if "broker_url" not in self._plan.settings.model_fields_set:
            await self._start_broker()
        await self._migrate()
        for part in self._plan.parts:
            self._start(part)
        await self._until(_wait_until_ready(self._plan.url))
        on_ready()
        await asyncio.Event().wait()

    async def _start_broker(self) -> None:
        folder = self._plan.settings.data.absolute() / "valkey"
        folder.mkdir(exist_ok=True)
        self._socket = valkey.place_socket(folder)
        self._environment["SLIMLINE_BROKER_URL"] = f"redis+socket://{self._socket}"
        self._start(Part("valkey", valkey.server_command(folder, self._socket), grace_s=10))
        try:
            await self._until(valkey.wait_until_open(self._socket))
        except SlimlineError:
            say("valkey", "does not start with what it has kept: that is set aside, and lost messages are sent again")
            valkey.set_aside(folder)
            self._running[-1].failures = 0
            await self._until(valkey.wait_until_open(self._socket))

    async def _migrate(self) -> None:
        child = Child(Part("migrate", migrate_command(), grace_s=5), self._environment)
        self._running.append(child)
        status = await child.run_once()
        self._running.remove(child)
        if status:
            raise _start_failed("the database migration failed")

    def _start(self, part: Part) -> None:
        child = Child(part, self._environment)
        self._running.append(child)
        child.start()

    async def _until(self, opened: Awaitable[None]) -> None:
        """Wait for `opened`, unless a part keeps dying meanwhile."""
        waiting = asyncio.ensure_future(opened)
        while not (await asyncio.wait({waiting}, timeout=0.1))[0]:
            for child in self._running:
                if child.failures >= EARLY_DEATHS_MAX:
                    waiting.cancel()
                    raise _start_failed(f"{child.part.name} died {child.failures} times while starting")
        waiting.result()

    async def _stop_all(self) -> None:
        for child in reversed(self._running):
            await child.stop()
        if self._socket and self._plan.settings.data.absolute() not in self._socket.parents:
            shutil.rmtree(self._socket.parent, ignore_errors=True)

    def _on_signal(self) -> None:
        if not self._stop_asked.is_set():
            say("up", "stopping; once more kills at once")
            self._stop_asked.set()
            return
        for child in self._running:
            child.send(signal.SIGKILL)


def _environment(plan: Plan) -> dict[str, str]:
    hidden: Mapping[str, str] = {"CUDA_VISIBLE_DEVICES": ""} if plan.device == "cpu" else {}
    return {**os.environ, "SLIMLINE_DATA": str(plan.settings.data.absolute()), "PYTHONUNBUFFERED": "1", **hidden}


def _start_failed(what: str) -> SlimlineError:
    return SlimlineError(
        "START_FAILED", what, kind=FaultKind.OURS, hint="its last log lines above say why; nothing was left running"
    )


async def _wait_until_ready(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as client:
        while True:
            try:
                if (await client.get("/readyz")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            await asyncio.sleep(0.1)
