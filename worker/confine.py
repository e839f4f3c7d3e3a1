"""What a child does to itself before it touches an upload: its own group, limits, no network. Linux only."""

import ctypes
import os
import resource
import signal
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_SET_PDEATHSIG = 1
_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_OPEN_FILES = 4096
_CPU_GRACE_S = 5


class Confinement(BaseModel):
    """Limits of one child. The supervisor has softer ones and tells why; these hold when it cannot."""

    model_config = ConfigDict(frozen=True)

    memory_bytes: int | None = None
    """Private writable memory. None on a GPU, whose driver maps far more than it uses."""
    cpu_s: int
    """Processor time of all threads together."""
    file_bytes: int


def confine(limits: Confinement, folder: Path, parent: int) -> None:
    """Confine this process to `folder` and `limits`; it dies when `parent` does. Raises OSError when it cannot."""
    os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask
        os.kill(os.getpid(), signal.SIGKILL)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    Path("/proc/self/oom_score_adj").write_text("500")  # when memory runs out, a child goes before the worker
    _leave_network(libc)
    _enter(folder)
    _limit(limits)


def _leave_network(libc: ctypes.CDLL) -> None:
    """Go to an empty network namespace, where the kernel lets us; without root that takes a user namespace too."""
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


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
