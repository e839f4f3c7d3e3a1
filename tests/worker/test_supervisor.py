import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.contracts.events import Finished, Log
from app.contracts.failure import FaultKind
from worker.forkserver import ForkServer, clean_environment
from worker.outcome import (
    Cancelled,
    Completed,
    Crashed,
    Lost,
    Outcome,
    OutOfMemory,
    Refused,
    Released,
    TimedOut,
    failure_of,
)
from worker.supervisor import Command, Supervisor

MIB = 1024**2


def notes(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Completed), outcome
    assert isinstance(outcome.event, Finished)
    return outcome.event.notes


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < until, f"process {pid} lives on"
        time.sleep(0.01)


class Pids:
    """Keeps the process ids that the probe `hang` tells."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def __call__(self, event: object) -> None:
        assert isinstance(event, Log)
        self.pids = [int(pid) for pid in event.message.split()]


def test_events_come_in_order(run_probe: Callable[..., Outcome]) -> None:
    seen = []
    outcome = run_probe("tell", {"messages": ["a", "b\nc", "ü"]}, on_event=seen.append)
    assert [event.message for event in seen] == ["a", "b\nc", "ü"]
    assert isinstance(outcome, Completed)


def test_a_long_event_arrives_whole(run_probe: Callable[..., Outcome]) -> None:
    seen = []
    run_probe("tell", {"messages": ["x" * 3_000_000]}, on_event=seen.append)
    assert len(seen[0].message) == 3_000_000


def test_child_sees_its_folder_and_nothing_else(run_probe: Callable[..., Outcome], tmp_path: Path) -> None:
    told = dict(note.split("=", 1) for note in notes(run_probe("look_around")))
    assert Path(told["folder"]).parent == tmp_path
    assert told["temporary"] == told["folder"] + "/tmp"
    assert told["leader"] == "True"
    assert told["stdin"] == "''"
    assert told["fds"] == "4"  # stdin, stdout, stderr, events
    assert told["main"] == "worker.forkserver"


def test_environment_is_an_allow_list() -> None:
    kept = clean_environment(
        {"PATH": "/bin", "OMP_NUM_THREADS": "2", "SLIMLINE_DATABASE_URL": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
    )
    assert {"PATH", "OMP_NUM_THREADS"} < set(kept)
    assert "secret" not in kept.values()


def test_secrets_of_the_worker_do_not_reach_children(
    light_server: ForkServer, run_probe: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMLINE_DATABASE_URL", "postgresql://u:secret@h/d")
    told = notes(run_probe("look_around", by=Supervisor(light_server)))
    assert "SLIMLINE" not in told[0]


def test_children_have_no_network(run_probe: Callable[..., Outcome]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = notes(run_probe("connect", {"port": listener.getsockname()[1]}))
    assert told == ["PermissionError"]


WORKER = """
import sys, tempfile
from pathlib import Path
from worker.child import Order
from worker.confinement import Confinement
from worker.forkserver import ForkServer
from worker.supervisor import Command, Supervisor, Watch

def tell(event):
    print(server.pid, event.message, flush=True)

server = ForkServer(preload=())
confinement = Confinement(cpu_s=60, file_bytes=1000000, may_start_processes=True)
order = Order(entry="probes:hang", arguments={}, confinement=confinement)
watch = Watch(60, 2**33, tell, lambda: Command.CONTINUE)
Supervisor(server).run(order, Path(sys.argv[1]), watch)
"""


def test_nothing_outlives_a_killed_worker(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    with worker:
        told = [int(pid) for pid in worker.stdout.readline().split()]
        worker.kill()
    assert len(told) == 3  # the fork server, the child, and what the child started
    for pid in told:
        wait_until_gone(pid)


def test_torch_numpy_and_onnxruntime_compute_in_every_child(run_probe: Callable[..., Outcome]) -> None:
    for _ in range(5):
        assert notes(run_probe("compute")) == ["27000000 27000000 27000000"]


def test_a_refusal_is_passed_on(run_probe: Callable[..., Outcome]) -> None:
    outcome = run_probe("refuse")
    assert isinstance(outcome, Refused)
    assert (outcome.failure.code, outcome.failure.hint) == ("MODEL_TRUNCATED", "send it again")


def test_a_defect_is_ours_and_tells_no_details(run_probe: Callable[..., Outcome]) -> None:
    outcome = run_probe("divide")
    assert isinstance(outcome, Refused)
    assert (outcome.failure.kind, outcome.failure.code) == (FaultKind.OURS, "ENGINE_DEFECT")
    assert "/" not in outcome.failure.message
    assert "division" not in outcome.failure.message


@pytest.mark.parametrize("text", ["{not json}\n", '{"type": "unheard of"}\n'])
def test_a_malformed_event_is_our_defect(run_probe: Callable[..., Outcome], text: str) -> None:
    outcome = run_probe("babble", {"text": text})
    assert isinstance(outcome, Refused)
    assert outcome.failure.kind == FaultKind.OURS


@pytest.mark.parametrize(("command", "outcome"), [(Command.CANCEL, Cancelled), (Command.GIVE_UP, Lost)])
def test_a_command_ends_the_whole_group(
    run_probe: Callable[..., Outcome], command: Command, outcome: type[Outcome]
) -> None:
    told = Pids()

    def ask() -> Command:
        return command if told.pids else Command.CONTINUE

    assert isinstance(run_probe("hang", on_event=told, on_tick=ask), outcome)
    assert len(told.pids) == 2
    for pid in told.pids:
        wait_until_gone(pid)


def test_time_out(run_probe: Callable[..., Outcome]) -> None:
    outcome = run_probe("hang", run_s=0.3)
    assert outcome == TimedOut(0.3)
    assert failure_of(outcome).code == "RUN_TIME_EXCEEDED"


def test_processor_time_is_a_backstop(run_probe: Callable[..., Outcome]) -> None:
    assert isinstance(run_probe("spin", cpu_s=1), TimedOut)


def test_a_stop_releases_the_work(heavy_server: ForkServer, run_probe: Callable[..., Outcome]) -> None:
    supervisor = Supervisor(heavy_server)
    outcome = run_probe("hang", by=supervisor, on_event=lambda _: supervisor.stop())
    assert outcome == Released()


@pytest.mark.parametrize("library", ["numpy", "torch", "python"])
def test_memory_limit_in_the_child(run_probe: Callable[..., Outcome], library: str) -> None:
    outcome = run_probe("fill_memory", {"with": library, "bytes": 3000 * MIB}, data_bytes=1500 * MIB)
    assert isinstance(outcome, Refused)
    assert outcome.failure.code == "OUT_OF_MEMORY"


def test_memory_limit_of_the_group(run_probe: Callable[..., Outcome]) -> None:
    outcome = run_probe(
        "fill_memory", {"with": "python", "bytes": 600 * MIB, "hold_s": 60}, data_bytes=None, memory_bytes=500 * MIB
    )
    assert outcome == OutOfMemory()
    assert failure_of(outcome).code == "OUT_OF_MEMORY"


def test_computing_within_the_memory_limit(run_probe: Callable[..., Outcome]) -> None:
    assert notes(run_probe("compute", data_bytes=1024 * MIB))


def test_file_size_limit(run_probe: Callable[..., Outcome]) -> None:
    outcome = run_probe("write", {"bytes": 2 * MIB}, file_bytes=MIB)
    assert isinstance(outcome, Refused)
    assert outcome.failure.code == "FILE_TOO_LARGE"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_transient_and_its_log_kept(run_probe: Callable[..., Outcome], number: int) -> None:
    outcome = run_probe("die", {"signal": number})
    assert outcome == Crashed(-number, "last words\n")
    assert failure_of(outcome).kind == FaultKind.TRANSIENT


def test_an_early_exit_is_a_crash(run_probe: Callable[..., Outcome]) -> None:
    assert run_probe("leave", {"code": 0}) == Crashed(0, "")


def test_a_noisy_child_neither_blocks_nor_fills_memory(run_probe: Callable[..., Outcome]) -> None:
    assert isinstance(run_probe("shout", {"lines": 5000}), Completed)


def test_what_a_finished_child_left_running_is_killed(run_probe: Callable[..., Outcome]) -> None:
    wait_until_gone(int(notes(run_probe("leave_one_behind"))[0]))


def test_an_error_of_the_caller_kills_the_child(run_probe: Callable[..., Outcome]) -> None:
    told = Pids()

    def fail(event: Log) -> None:
        told(event)
        raise RuntimeError("database gone")

    with pytest.raises(RuntimeError, match="database gone"):
        run_probe("hang", on_event=fail)
    for pid in told.pids:
        wait_until_gone(pid)


def test_a_killed_fork_server_ends_its_children_and_is_started_again(
    light_server: ForkServer, run_probe: Callable[..., Outcome]
) -> None:
    supervisor = Supervisor(light_server)
    told = Pids()

    def kill_server(event: Log) -> None:
        told(event)
        assert light_server.pid
        os.kill(light_server.pid, signal.SIGKILL)

    outcome = run_probe("hang", by=supervisor, on_event=kill_server)
    assert isinstance(outcome, Crashed)
    assert outcome.code is None
    for pid in told.pids:
        wait_until_gone(pid)
    assert isinstance(run_probe("tell", {"messages": []}, by=supervisor), Completed)


def test_many_at_once_leave_no_descriptor_and_no_process(
    light_server: ForkServer, run_probe: Callable[..., Outcome]
) -> None:
    supervisor = Supervisor(light_server)
    run_probe("tell", {"messages": []}, by=supervisor)
    gc.collect()  # descriptors that other tests dropped would otherwise go meanwhile
    before = len(list(Path("/proc/self/fd").iterdir()))
    done = []

    def run_some() -> None:
        done.extend(run_probe("tell", {"messages": ["x"]}, by=supervisor) for _ in range(25))

    threads = [threading.Thread(target=run_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(outcome) for outcome in done] == [Completed] * 100
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    server = psutil.Process(light_server.pid)
    assert server.children() == []
    assert server.num_fds() < 12


def test_stopping_the_server_leaves_nothing(light_server: ForkServer) -> None:
    light_server.start()
    pid = light_server.pid
    light_server.stop()
    assert not psutil.pid_exists(pid)
