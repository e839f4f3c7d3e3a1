"""`python -m worker`: a worker, or with `beat` the sweeper. What `slimline worker` and `slimline beat` become."""

import argparse
import signal
import sys
import threading
import warnings
from collections.abc import Sequence

from celery.platforms import SecurityWarning

from app import log
from app.contracts.messages import Queue
from app.settings import Settings
from worker.celery_app import make_app
from worker.collector import collecting
from worker.sweeper import sweep_until


def main(arguments: Sequence[str]) -> int:
    """Run until a signal ends it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Slimline's worker; settings are SLIMLINE_*.")
    parser.add_argument("--concurrency", type=int, help="jobs at the same time (SLIMLINE_CONCURRENCY)")
    parser.add_argument("--queues", default=",".join(Queue), help="comma-separated (%(default)s)")
    parser.add_subparsers(dest="part").add_parser("beat", help="the clock that has lost jobs found again")
    chosen = parser.parse_args(arguments)
    settings = Settings()
    if chosen.part == "beat":
        return _beat(settings)
    return _work(settings, chosen.concurrency or settings.concurrency, chosen.queues)


def _work(settings: Settings, concurrency: int, queues: str) -> int:
    # As root Celery warns of pickles, which are never taken here: messages are JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    # Gossip, mingling and events are for talk among workers; ours only look at rows.
    silent = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    make_app(settings).worker_main(
        ["--quiet", "worker", *silent, "--pool", "threads", "--concurrency", str(concurrency), "--queues", queues]
    )
    return 0


def _beat(settings: Settings) -> int:
    log.configure(settings)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with collecting(stopped, settings):
        sweep_until(stopped, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
