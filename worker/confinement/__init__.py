"""What a child does to itself before it touches an upload: its own group, limits, no network. Linux only.

`kernel` has namespaces and capabilities, `landlock` files and signals, `seccomp` system calls. Each is done where the
kernel lets us: they overlap, and `lacking` names what is not to be had.
"""

import os
import resource
import signal
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from worker.confinement import kernel, landlock, seccomp

_OPEN_FILES = 4096
_CPU_GRACE_S = 5
MOST_TASKS = 1024 + 64 * (os.cpu_count() or 1)
"""Threads of all processes together: several pools of one thread per processor, in eight processes that train."""


class Confinement(BaseModel):
    """Limits of one child. The supervisor has softer ones and tells why; these hold when it cannot."""

    model_config = ConfigDict(frozen=True)

    memory_bytes: int | None = None
    """Private writable memory. None on a GPU, whose driver maps far more than it uses."""
    cpu_s: int
    """Processor time of all threads together."""
    file_bytes: int
    may_start_processes: bool
    """Whether it may start programs, as measuring does, or only threads."""

    @property
    def on_gpu(self) -> bool:
        """Whether drivers must work: they talk over Unix sockets, and write to devices and shared memory."""
        return self.memory_bytes is None

    @property
    def may_train_together(self) -> bool:
        """Whether processes may have to find each other over the loopback interface: one trains on each GPU."""
        return self.on_gpu and self.may_start_processes and len(list(Path("/dev").glob("nvidia[0-9]*"))) > 1


def confine(limits: Confinement, folder: Path, parent: int) -> None:
    """Confine this process to `folder` and `limits`; it dies when `parent` does. Raises OSError when it cannot."""
    os.setsid()
    kernel.die_with_parent()
    if os.getppid() != parent:  # it died before we could ask
        os.kill(os.getpid(), signal.SIGKILL)
    Path("/proc/self/oom_score_adj").write_text("500")  # when memory runs out, a child goes before the worker
    _enter(folder)
    _limit(limits)
    _sandbox(limits, folder)


def lacking(folder: Path) -> list[str]:
    """What of the confinement this kernel refuses, in words for the log; a process confines itself to try."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            found = _sandbox(Confinement(memory_bytes=0, cpu_s=0, file_bytes=0, may_start_processes=True), folder)
            os.write(writing, "\n".join(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        words = told.read().splitlines()
    os.waitpid(pid, 0)
    return words


def _sandbox(limits: Confinement, folder: Path) -> list[str]:
    """Give up what a child needs not; gives what the kernel would not take."""
    kernel.gain_no_privileges()
    missing = []
    if not kernel.leave_network(MOST_TASKS):
        missing.append("no network namespace: sockets are only refused, and not where training runs on several GPUs")
    elif limits.may_train_together:
        _raise_loopback()
    if not landlock.restrict(folder, drivers=limits.on_gpu):
        missing.append("no Landlock: files and processes of the same user are open to a child")
    kernel.drop_capabilities()
    families = seccomp.INTERNET if limits.may_train_together else seccomp.LOCAL if limits.on_gpu else seccomp.NONE
    if not seccomp.restrict(families, may_start_processes=limits.may_start_processes):
        missing.append("no seccomp filter: dangerous system calls are not refused")
    return missing


def _raise_loopback() -> None:
    from worker.engine.training.distributed.loopback import raise_loopback  # noqa: PLC0415 - children have it loaded

    raise_loopback()


def _enter(folder: Path) -> None:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    os.chdir(folder)
    os.umask(0o077)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)


def _limit(limits: Confinement) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    _lower(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + _CPU_GRACE_S)
    if limits.memory_bytes is not None:
        # Not RLIMIT_AS: that also counts read-only maps, so a mapped 10 GB model would need 10 GB of it.
        _lower(resource.RLIMIT_DATA, limits.memory_bytes)


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    _, ceiling = resource.getrlimit(kind)
    top = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, top = min(soft, ceiling), min(top, ceiling)
    resource.setrlimit(kind, (soft, top))
