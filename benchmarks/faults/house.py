"""The service as separate processes on one machine: API, workers, beat, and what they stand on. No storm here."""

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from app.db.migrate import upgrade
from app.up.parts import beat_command, server_command, worker_command
from benchmarks.faults.backends import HERE, free_port
from benchmarks.faults.program import Program, wait_until

QUICK_TO_NOTICE = {
    "SLIMLINE_HEARTBEAT_S": "0.5",
    "SLIMLINE_LEASE_S": "5",
    "SLIMLINE_SWEEP_S": "1",
    "SLIMLINE_COLLECT_S": "3",
    "SLIMLINE_COLLECT_AFTER_S": "30",
}


class House:
    """The parts of one service. `environment` names the database, the broker and the storage that all of them use."""

    def __init__(self, folder: Path, environment: Mapping[str, str], workers: int = 1, host: str = HERE) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.host, self.port = folder, host, free_port()
        self.environment = {"SLIMLINE_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1", **environment}
        self.api = self.make("api", server_command(host, self.port))
        self.beat = self.make("beat", beat_command())
        self.workers = [self.make_worker(f"worker-{number}") for number in range(workers)]

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def programs(self) -> list[Program]:
        """Every part, in starting order."""
        return [self.beat, *self.workers, self.api]

    def make(self, name: str, command: tuple[str, ...], **environment: str) -> Program:
        """A part that is not yet started."""
        return Program(name, command, self.folder / f"{name}.log", {**self.environment, **environment})

    def make_worker(self, name: str, **environment: str) -> Program:
        """A worker for one job at a time, with its own work folder."""
        return self.make(name, worker_command(1), SLIMLINE_WORK_DIR=str(self.folder / name), **environment)

    def open(self) -> "House":
        """Migrate, start every part, and wait until the API is ready."""
        (self.folder / "data").mkdir(exist_ok=True)
        upgrade(self.environment["SLIMLINE_DATABASE_URL"])
        for program in self.programs:
            program.start()
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Raises TimeoutError with the API's last words."""
        try:
            wait_until(self._is_ready, "the API is not ready")
        except TimeoutError as error:
            raise TimeoutError(self.api.tail()) from error

    def close(self) -> None:
        """Stop what runs."""
        for program in reversed(self.programs):
            if program.is_running:
                with suppress(subprocess.TimeoutExpired):  # it is killed then
                    program.stop()

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        return False


def find_children(worker: Program) -> list[psutil.Process]:
    """The processes that compute for a worker: its fork server's own children."""
    with suppress(psutil.NoSuchProcess):
        servers = psutil.Process(worker.pid).children()
        return [child for server in servers for child in server.children()]
    return []


class Restarts:
    """Starts again what ended, as a supervisor of services does. Call it often."""

    def __init__(self, programs: list[Program], pause_s: float = 0.5) -> None:
        self._programs, self._pause_s = programs, pause_s
        self._ended_at: dict[str, float] = {}

    def __call__(self) -> None:
        """One look at every program."""
        now = time.monotonic()
        for program in self._programs:
            if program.is_running:
                self._ended_at.pop(program.name, None)
            elif now - self._ended_at.setdefault(program.name, now) >= self._pause_s:
                program.start()
