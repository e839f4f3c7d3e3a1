"""The parts of the service as commands: what `slimline server|worker|beat` become and `slimline up` has as children."""

import sys
from dataclasses import dataclass

QUEUES = "ingest,cpu,cuda"
"""Every queue. A job for a device that is absent is taken and fails with the reason, rather than wait for ever."""

JOB_QUEUES = "cpu,cuda"
CHECK_QUEUE = "ingest"


@dataclass(frozen=True)
class Part:
    """A child process of `up`. `grace_s`: how long it may take to stop before it is killed."""

    name: str
    command: tuple[str, ...]
    grace_s: float


def server_command(host: str, port: int, workers: int = 1) -> tuple[str, ...]:
    """The API under uvicorn. Open event streams are cut after three seconds of stopping; clients resume them."""
    # Kept a little longer than the minute for which load balancers keep a connection they may still use.
    edge = ("--http", "app.http.protocol:GuardedProtocol", "--ws", "none", "--timeout-keep-alive", "65")
    options = ("--host", host, "--port", str(port), "--workers", str(workers), "--timeout-graceful-shutdown", "3")
    return (
        *(sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory"),
        *("--no-server-header", "--no-access-log", "--log-level", "warning"),
        *edge,
        *options,
    )


def worker_command(concurrency: int, queues: str = QUEUES) -> tuple[str, ...]:
    """A worker that runs `concurrency` jobs at a time from the comma-separated `queues`."""
    return sys.executable, "-m", "worker", "--concurrency", str(concurrency), "--queues", queues


def beat_command() -> tuple[str, ...]:
    """The clock that has the sweeper run."""
    return sys.executable, "-m", "worker", "beat"


def migrate_command() -> tuple[str, ...]:
    """Brings the database to the newest schema, then ends."""
    return sys.executable, "-m", "app.cli", "migrate"
