"""The process tree: restart in mid-job, a killed part, a killed parent, a second `up`, a taken port."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.xdist_group("e2e")


def many_steps(number: int) -> list[dict[str, Any]]:
    return [{"method": "prune.magnitude", "amount": (step + 1) / (number + 1)} for step in range(number)]


def is_at_work(job: Any) -> bool:
    return bool(job["state"] == "running" and job["progress"]["step"] >= 2)


def descendants(up: Any) -> list[psutil.Process]:
    return psutil.Process(up.process.pid).children(recursive=True)


def run_up(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "up", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_second_up_on_the_same_folder_is_refused(service: Any) -> None:
    refused = run_up("--port", "0", "--data", str(service.data))
    assert refused.returncode == 2
    assert f"process {service.process.pid}" in refused.stderr
    assert service.is_ready()


def test_taken_port_is_refused(service: Any, tmp_path: Path) -> None:
    refused = run_up("--port", service.url.rpartition(":")[2], "--data", str(tmp_path / "other"))
    assert refused.returncode == 2
    assert "--port" in refused.stderr


@pytest.mark.slow
def test_stop_and_start_in_mid_job(own_up: Any, slow: Any) -> None:
    job = slow.send(own_up.start(), many_steps(8))
    own_up.until(job["id"], is_at_work)
    family = descendants(own_up)
    assert own_up.stop(signal.SIGINT) == 0
    assert not psutil.wait_procs(family, timeout=5)[1]
    ended = own_up.start().finish(job["id"])
    assert ended["state"] == "succeeded", ended["failure"]
    events = own_up.ask(f"/v1/jobs/{job['id']}/events?limit=200")["data"]
    states = [event["data"]["state"] for event in events if event["type"] == "state"]
    assert states == ["queued", "running", "queued", "running", "succeeded"]
    assert len(ended["comparison"]["steps"]) == 8


def test_database_and_broker_of_ones_own(own_up: Any, tiny: Any, postgres_url: str, broker_url: str) -> None:
    own_up.environment = {"SLIMLINE_DATABASE_URL": postgres_url, "SLIMLINE_BROKER_URL": broker_url}
    job = tiny.send(own_up.start(), many_steps(1))
    assert own_up.finish(job["id"])["state"] == "succeeded"
    assert not (own_up.data / "valkey").exists()
    assert not list(own_up.data.glob("*.db"))
    assert own_up.stop() == 0


def test_killed_parent_leaves_nothing_running(own_up: Any, slow: Any) -> None:
    job = slow.send(own_up.start(), many_steps(30))
    own_up.until(job["id"], is_at_work)
    family = descendants(own_up)
    assert len(family) >= 5  # valkey, beat, worker, api, the job's own
    own_up.process.kill()
    own_up.process.communicate()
    assert not psutil.wait_procs(family, timeout=10)[1]


def find_part(up: Any, word: str) -> psutil.Process:
    [part] = [child for child in psutil.Process(up.process.pid).children() if word in child.cmdline()]
    return part


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_killed_api_comes_back_and_watchers_go_on(own_up: Any, slow: Any) -> None:
    job = slow.send(own_up.start(), many_steps(8))
    watcher = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "jobs", "watch", job["id"], "--url", own_up.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    own_up.until(job["id"], is_at_work)
    find_part(own_up, "uvicorn").kill()
    printed, told = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, told
    assert "final" in printed
    assert told.splitlines().count("running") == 1  # no event came twice
    assert "api    | killed by SIGKILL; started again" in own_up.log.read_text()
    assert own_up.stop() == 0


@pytest.mark.slow
def test_a_second_ctrl_c_kills(own_up: Any) -> None:
    own_up.start()
    find_part(own_up, "cpu,cuda").suspend()  # a worker that will not stop when asked
    family = descendants(own_up)
    own_up.process.send_signal(signal.SIGINT)
    wait_for(lambda: "stopping; once more kills at once" in own_up.log.read_text())
    assert own_up.stop(signal.SIGINT) == 0
    assert not psutil.wait_procs(family, timeout=20)[1]
    assert "did not stop within" not in own_up.log.read_text()
