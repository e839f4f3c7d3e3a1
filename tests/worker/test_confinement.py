"""What a child cannot do, tried from inside a real one. That it can compute is in `test_supervisor`."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.contracts.events import Finished
from worker.confinement import seccomp
from worker.forkserver import ForkServer
from worker.outcome import Completed, Outcome, Refused
from worker.supervisor import Supervisor

MIB = 1024**2
RunProbe = Callable[..., Outcome]
Try = Callable[..., list[str]]
REFUSED = "EPERM"
SHUT = "EACCES"

pytestmark = pytest.mark.skipif(platform.machine() not in seccomp.MACHINES, reason="no filter for this processor")


@pytest.fixture(scope="session")
def missing(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What this kernel has not; found out in a process with one thread."""
    code = "import app, worker, sys; from pathlib import Path; from worker.confinement import lacking\n"
    code += "print(lacking(Path(sys.argv[1])))"
    folder = tmp_path_factory.mktemp("lacking")
    return subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True)


@pytest.fixture
def landlock(missing: str) -> None:
    if "Landlock" in missing:
        pytest.skip("this kernel has no Landlock")


@pytest.fixture
def attempt(run_probe: RunProbe) -> Try:
    """Has a child try things by name; gives what came of each."""

    def run(*what: str, arguments: dict[str, Any] | None = None, **limits: Any) -> list[str]:
        numbers = seccomp.MACHINES[platform.machine()].refused
        outcome = run_probe(
            "escapes:attempt", {"what": list(what), "numbers": dict(numbers), **(arguments or {})}, **limits
        )
        assert isinstance(outcome, Completed), outcome
        assert isinstance(outcome.event, Finished)
        return outcome.event.notes

    return run


def test_no_socket_but_a_pair(attempt: Try) -> None:
    others = ("the internet", "the internet 6", "the kernel", "the hypervisor")
    families = [*(f"a socket to {other}" for other in others), "a socket for packets", "a socket for ciphers"]
    assert attempt(*families, "a Unix socket", "a pair of sockets") == [REFUSED] * 7 + ["heard"]


def test_a_driver_may_talk_over_unix_sockets_only(attempt: Try) -> None:
    on_gpu = {"data_bytes": None}
    assert attempt("a Unix socket", "a socket to the internet", "a socket to the hypervisor", **on_gpu) == [
        "opened",
        REFUSED,
        REFUSED,
    ]


def test_what_changes_the_machine_is_refused(attempt: Try) -> None:
    calls = ("ptrace", "mount", "unshare", "setns", "chroot", "personality")
    numbered = ("bpf", "keyctl", "io_uring", "a module", "kexec")
    assert attempt(*calls, *numbered) == [REFUSED] * 11


def test_no_process_leaves_the_group_that_is_killed(attempt: Try) -> None:
    assert attempt("a session", "a process group", "a program in a session of its own") == [REFUSED] * 3


def test_a_job_may_start_programs(attempt: Try) -> None:
    assert attempt("a thread", "a fork", "a program") == ["True", "0", "ran"]


def test_what_checks_an_upload_may_only_start_threads(attempt: Try) -> None:
    what = ("a thread", "a fork", "a program", "a program in place of this")
    assert attempt(*what, may_start_processes=False) == ["True", REFUSED, REFUSED, REFUSED]


@pytest.mark.parametrize("what", ["read", "write", "remove"])
@pytest.mark.usefixtures("landlock")
def test_files_outside_the_folder_are_shut(attempt: Try, tmp_path: Path, what: str) -> None:
    other = tmp_path / "database"
    other.write_text("a secret")
    arguments = {"path": str(other)}
    assert attempt(what, arguments=arguments) == [SHUT]
    assert attempt(what, arguments=arguments, data_bytes=None) == [SHUT]
    assert other.read_text() == "a secret"


def test_files_in_the_folder_are_open(attempt: Try) -> None:
    assert attempt("write here") == ["here"]


@pytest.mark.usefixtures("landlock")
def test_other_processes_of_the_user_cannot_be_signalled(attempt: Try) -> None:
    arguments = {"worker": os.getpid()}
    assert attempt("signal the worker", "kill the fork server", arguments=arguments) == [REFUSED] * 2


def test_no_secret_is_in_reach(attempt: Try, light_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMLINE_DATABASE_URL", "postgresql://u:secret@h/d")
    [seen] = attempt("look into others", by=Supervisor(light_server))
    assert seen == "[]"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may read what is hidden from its own user")
def test_a_hidden_process_is_hidden_from_its_user() -> None:
    """Where neither Landlock nor a user namespace is to be had, as in some containers."""
    code = (
        "import os, sys, time; from worker.confinement.kernel import hide_from_same_user\n"
        "os.setuid(65534); hide_from_same_user(); print('hidden', flush=True); sys.stdin.read()"
    )
    read = "import os, sys; os.setuid(65534); open(f'/proc/{sys.argv[1]}/environ').read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as hidden:
        assert hidden.stdout
        assert hidden.stdout.readline() == "hidden\n"
        reader = subprocess.run(
            [sys.executable, "-c", read, str(hidden.pid)], capture_output=True, text=True, check=False
        )
        assert hidden.stdin
        hidden.stdin.close()
    assert "PermissionError" in reader.stderr


def test_root_is_no_more_than_a_user(attempt: Try) -> None:
    [told] = attempt("capabilities")
    assert set(told.strip("[]").split(", ")) <= {"''", "'4'"}  # none, or reading alone


def test_limits_hold(attempt: Try) -> None:
    [told, opened] = attempt("limits", "open files", data_bytes=3000 * MIB, cpu_s=50, file_bytes=7 * MIB)
    assert told == f"[{3000 * MIB}, 50, {7 * MIB}, 4096, 0]"
    assert 4000 < int(opened) < 4096


def test_too_many_threads_end_the_work(run_probe: RunProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.supervisor.MOST_TASKS", 1)
    outcome = run_probe("hang", on_event=lambda _: None)
    assert isinstance(outcome, Refused)
    assert outcome.failure.code == "TOO_MANY_THREADS"


def test_the_server_says_what_the_kernel_has_not(missing: str, tmp_path: Path) -> None:
    """In its log, once: here it is told by a process to which the filter already refuses namespaces."""
    code = (
        "import app, worker, sys; from pathlib import Path; from worker.confinement import lacking, kernel, seccomp\n"
        "kernel.gain_no_privileges(); seccomp.restrict(seccomp.LOCAL, may_start_processes=True)\n"
        "print(lacking(Path(sys.argv[1])))"
    )
    told = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True)
    assert "no network namespace" in told
    assert ("no Landlock" in told) == ("no Landlock" in missing)
