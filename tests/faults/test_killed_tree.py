"""`slimline up` dies, or is asked to end, in the middle of a job: nothing of it stays, and the next one goes on."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from benchmarks.faults.books import read_books
from benchmarks.faults.program import wait_until

pytestmark = pytest.mark.xdist_group("e2e")

QUICK_TO_NOTICE = {"SLIMLINE_HEARTBEAT_S": "0.2", "SLIMLINE_LEASE_S": "2", "SLIMLINE_SWEEP_S": "0.5"}


def find_any_part(up: Any) -> list[psutil.Process]:
    """Every process that was started for this data folder, whoever its parent is now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(up.data) in " ".join(
                [process.cwd(), *process.cmdline(), process.environ().get("SLIMLINE_DATA", "")]
            ):
                found.append(process)
    return found


def measures(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "worker.engine.measure" in process.cmdline()
    return False


@pytest.mark.slow
def test_killed_while_it_measures(own_up: Any, make_jobs: Callable[[str], Any]) -> None:
    own_up.environment = QUICK_TO_NOTICE
    jobs = make_jobs(own_up.start().url)
    sent = [jobs.send(2) for _ in range(3)]
    parent = psutil.Process(own_up.process.pid)
    wait_until(lambda: any(map(measures, parent.children(recursive=True))), "nothing measures")
    family = parent.children(recursive=True)
    os.kill(own_up.process.pid, signal.SIGKILL)
    own_up.process.communicate()
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert find_any_part(own_up) == []
    [log] = (own_up.data / "valkey").rglob("*.incr.aof")
    log.write_bytes(b"*3\r\n$not what Valkey wrote\r\n" * 50)  # as a disk might that lost its power, too
    jobs = make_jobs(own_up.start().url)
    for job in sent:
        jobs.assert_done_once(job)
    books = read_books(f"sqlite:///{own_up.data / 'slimline.db'}", own_up.data / "blobs")
    assert books.without_one_artifact == books.gaps == books.with_wrong_end == []
    assert own_up.stop() == 0


@pytest.mark.slow
def test_ctrl_c_lets_a_short_job_end_and_hands_a_long_one_back(own_up: Any, make_jobs: Callable[[str], Any]) -> None:
    own_up.environment = {**QUICK_TO_NOTICE, "SLIMLINE_DRAIN_S": "3"}
    jobs = make_jobs(own_up.start().url)
    short = jobs.send(1)
    jobs.until(short, lambda seen: seen["state"] == "running")
    assert own_up.stop(signal.SIGINT) == 0
    own_up.environment = {**QUICK_TO_NOTICE, "SLIMLINE_DRAIN_S": "0.2"}
    jobs = make_jobs(own_up.start().url)
    assert jobs.look(short)["state"] == "succeeded"
    long = jobs.send(32)
    jobs.until_at_work(long)
    assert own_up.stop(signal.SIGINT) == 0
    jobs = make_jobs(own_up.start().url)
    assert jobs.assert_done_once(long)["attempt"] == 2
    assert jobs.states(long) == ["queued", "running", "queued", "running", "succeeded"]
