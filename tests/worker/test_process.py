"""The worker and the sweeper as processes, with a real broker between them and the rows."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.contracts.failure import FaultKind
from app.contracts.messages import Queue
from app.contracts.states import JobState
from app.db.migrate import upgrade
from app.dispatch import make_celery
from app.settings import Settings
from app.up.valkey import server_command
from worker.sweeper import find_drained

Process = subprocess.Popen[bytes]
Start = Callable[..., Process]
Until = Callable[[Callable[[], object]], None]
HERE = Path(__file__).parent


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite only: what differs between databases is tested without processes."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    upgrade(url)
    return url


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a process with the settings in its environment; whatever still runs is killed in the end."""
    running = []
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "SLIMLINE_DATA": str(settings.data),
        "SLIMLINE_DATABASE_URL": settings.database,
        "SLIMLINE_BROKER_URL": settings.broker,
        "SLIMLINE_HEARTBEAT_S": "0.2",
        "SLIMLINE_LEASE_S": "1",
        "SLIMLINE_SWEEP_S": "0.2",
    }

    def run(*arguments: str) -> Process:
        log = (tmp_path / f"process-{len(running)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
    for number in range(len(running)):
        sys.stdout.write(f"--- process {number}\n{(tmp_path / f'process-{number}.log').read_text()}")


@pytest.fixture
def start_worker(start: Callable[..., Process]) -> Callable[..., Process]:
    return lambda probe, *arguments: start(str(HERE / "probing_worker.py"), probe, *arguments)


def test_jobs_come_by_the_broker(start_worker: Start, bench: Any, until: Until) -> None:
    start_worker("make_artifact", "--concurrency", "2")
    jobs = [bench.submit() for _ in range(5)]
    until(lambda: all(bench.find(job).state == JobState.SUCCEEDED for job in jobs))
    assert [bench.find(job).attempt for job in jobs] == [1] * 5


def test_a_worker_takes_only_its_queues(start_worker: Start, bench: Any, until: Until) -> None:
    cpu, cuda = bench.submit(), bench.submit(device="cuda")
    start_worker("make_artifact", "--queues", "cuda")
    until(lambda: bench.find(cuda).state == JobState.SUCCEEDED)
    assert bench.find(cpu).state == JobState.QUEUED


def test_higher_priority_goes_first(start_worker: Start, bench: Any, until: Until) -> None:
    jobs = {priority: bench.submit(priority=priority) for priority in (0, 9, 5)}
    start_worker("make_artifact", "--concurrency", "1")
    until(lambda: all(bench.find(job).state == JobState.SUCCEEDED for job in jobs.values()))
    order = sorted(jobs, key=lambda priority: bench.find(jobs[priority]).started_at)
    assert order == [9, 5, 0]


def test_another_worker_goes_on_where_a_killed_one_was(
    start: Start, start_worker: Start, bench: Any, until: Until
) -> None:
    start("-m", "worker", "beat")
    worker = start_worker("checkpoint_and_hang")
    job = bench.submit()
    until(lambda: bench.find(job).checkpoint_step == 0)
    [server] = psutil.Process(worker.pid).children()
    family = [server, *server.children(recursive=True)]
    worker.kill()
    start_worker("checkpoint_and_hang")
    until(lambda: bench.find(job).state == JobState.SUCCEEDED)
    assert bench.find(job).attempt == 2
    assert psutil.wait_procs(family, timeout=20)[1] == []
    until(lambda: bench.workspaces() == [])  # a workspace goes right after the job's end is written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_hands_its_job_back(start_worker: Start, number: int, bench: Any, until: Until) -> None:
    worker = start_worker("checkpoint_and_hang")
    job = bench.submit()
    until(lambda: bench.find(job).progress is not None)
    worker.send_signal(number)
    assert worker.wait(20) == 0
    assert (bench.find(job).state, bench.find(job).failed_starts) == (JobState.QUEUED, 0)
    assert bench.workspaces() == []
    start_worker("checkpoint_and_hang")  # no sweeper runs: the message itself came back
    until(lambda: bench.find(job).state == JobState.SUCCEEDED)


def test_a_lost_message_is_sent_again(start: Start, start_worker: Start, bench: Any, until: Until) -> None:
    job = bench.submit()
    until(bench.count_messages)
    bench.lose_messages()
    start_worker("make_artifact")
    start("-m", "worker", "beat")
    until(lambda: bench.find(job).state == JobState.SUCCEEDED)


class TestBrokerRestart:
    """On a Valkey of its own."""

    @pytest.fixture
    def valkey(self, tmp_path_factory: pytest.TempPathFactory, until: Until) -> Iterator[Any]:
        folder = tmp_path_factory.mktemp("broker")
        started = []

        def run() -> Process:
            started.append(subprocess.Popen(server_command(folder, folder / "v.sock"), stdout=subprocess.DEVNULL))
            until((folder / "v.sock").exists)
            return started[-1]

        run.url = f"redis+socket://{folder / 'v.sock'}"
        yield run
        for process in started:
            process.kill()
            process.wait()

    @pytest.fixture
    def broker_url(self, valkey: Any) -> str:
        valkey.first = valkey()
        return valkey.url

    def test_the_worker_goes_on(self, valkey: Any, start: Start, start_worker: Start, bench: Any, until: Until) -> None:
        start("-m", "worker", "beat")  # the first message on a connection that was cut may be lost
        start_worker("make_artifact")
        first = bench.submit()
        until(lambda: bench.find(first).state == JobState.SUCCEEDED)
        valkey.first.terminate()
        valkey.first.wait()
        valkey()
        second = bench.submit()
        until(lambda: bench.find(second).state == JobState.SUCCEEDED)


def test_the_sweeper_sweeps_and_stops_when_asked(start: Start, bench: Any, until: Until) -> None:
    job = bench.submit(limits={"queue_s": 0.01})
    beat = start("-m", "worker", "beat")
    until(lambda: bench.find(job).state == JobState.FAILED)
    beat.terminate()
    assert beat.wait(10) == 0


def test_celery_finds_the_application_by_name(start: Start, bench: Any, until: Until) -> None:
    process = start("-m", "celery", "-A", "worker.celery_app", "worker", "-Q", "cuda", "--without-mingle")
    job = bench.submit(device="cuda")
    until(lambda: bench.find(job).state == JobState.FAILED)  # there is no GPU, or else the model is none
    assert bench.find(job).failure.kind == FaultKind.USER
    process.terminate()
    assert process.wait(20) == 0


def test_importing_the_application_reads_no_setting() -> None:
    code = "import worker.celery_app"
    environment = {**os.environ, "SLIMLINE_LEASE_S": "no number"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_worker_process_loads_no_tensor_library() -> None:
    code = "import sys, worker.celery_app; print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_a_broker_that_is_away_has_no_drained_queue() -> None:
    broker = make_celery("redis://127.0.0.1:1/0")
    assert find_drained(broker) == []
    broker.close()


def test_counting_messages(bench: Any, until: Until) -> None:
    assert bench.count_messages() == 0
    bench.submit(priority=9)
    bench.submit(priority=1)
    bench.submit(device="cuda")
    until(lambda: (bench.count_messages(Queue.CPU), bench.count_messages(Queue.CUDA)) == (2, 1))
