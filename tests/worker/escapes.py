"""What children try in the tests of their confinement: each attempt tells the error it met, or what it got."""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.contracts.events import Finished
from worker.pipe import Say

PTRACE_ATTACH, CLONE_NEWUSER, CLONE_VM, CLONE_THREAD = 16, 0x10000000, 0x100, 0x10000


def attempt(arguments: dict[str, Any], say: Say) -> None:
    """Try each of `arguments["what"]`; one note each, in order."""
    notes = [_outcome(ATTEMPTS[name], arguments) for name in arguments["what"]]
    say(Finished(artifacts=[], layers=[], verdict=None, device="cpu", versions={}, engine_s=0, notes=notes))


def _outcome(action: Callable[[dict[str, Any]], object], arguments: dict[str, Any]) -> str:
    try:
        return str(action(arguments))
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _call(name: str, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def _open_socket(family: int) -> str:
    socket.socket(family, socket.SOCK_DGRAM if family == socket.AF_NETLINK else socket.SOCK_STREAM).close()
    return "opened"


def _talk_in_pairs(_: dict[str, Any]) -> str:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"heard")
        return theirs.recv(9).decode()


def _start_thread(_: dict[str, Any]) -> str:
    ran = threading.Event()
    threading.Thread(target=ran.set).start()
    return str(ran.wait(5))


def _start_program(_: dict[str, Any]) -> str:
    return subprocess.check_output([sys.executable, "-c", "print('ran')"], text=True).strip()


def _start_program_in_a_session_of_its_own(_: dict[str, Any]) -> str:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    return f"runs as {process.pid}"


def _read(arguments: dict[str, Any]) -> str:
    return Path(arguments["path"]).read_text()


def _write(arguments: dict[str, Any]) -> int:
    return Path(arguments["path"]).write_text("written by a child")


def _remove(arguments: dict[str, Any]) -> str:
    Path(arguments["path"]).unlink()
    return "removed"


def _write_here(_: dict[str, Any]) -> str:
    Path("folder").mkdir()
    Path("a").write_text("here")
    return Path("a").rename("folder/b").read_text()


def _look_into_parents(_: dict[str, Any]) -> list[str]:
    """What can be read of any process but our own, by the names in /proc."""
    read = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            for name in ("environ", "maps", "mem", "fd"):
                try:
                    if (process / name).is_dir():
                        read += [str(each.readlink()) for each in (process / name).iterdir()]
                    elif (process / name).read_bytes():  # the kernel's own are empty
                        read.append(f"{process}/{name}")
                except OSError:
                    continue
    return read


def _limits(_: dict[str, Any]) -> list[int]:
    kinds = (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    return [resource.getrlimit(kind)[0] for kind in (*kinds, resource.RLIMIT_CORE)]


def _capabilities(_: dict[str, Any]) -> list[str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line.split()[1].lstrip("0") for line in lines if line.startswith(("CapPrm", "CapEff", "CapInh"))]


def _open_many_files(_: dict[str, Any]) -> int:
    count = 0
    while True:
        try:
            os.dup(0)
        except OSError:
            break
        count += 1
    os.closerange(count - 10, count + 10)
    return count


ATTEMPTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a socket to the internet": lambda _: _open_socket(socket.AF_INET),
    "a socket to the internet 6": lambda _: _open_socket(socket.AF_INET6),
    "a Unix socket": lambda _: _open_socket(socket.AF_UNIX),
    "a socket to the kernel": lambda _: _open_socket(socket.AF_NETLINK),
    "a socket to the hypervisor": lambda _: _open_socket(socket.AF_VSOCK),
    "a socket for packets": lambda _: _open_socket(socket.AF_PACKET),
    "a socket for ciphers": lambda _: _open_socket(socket.AF_ALG),
    "a pair of sockets": _talk_in_pairs,
    "a thread": _start_thread,
    "a fork": lambda _: os.waitpid(os.fork() or os._exit(0), 0)[1],
    "a program": _start_program,
    "a program in place of this": lambda _: os.execv(sys.executable, ["python", "-c", ""]),
    "a session": lambda _: os.setsid(),
    "a process group": lambda _: os.setpgid(0, 0),
    "a program in a session of its own": _start_program_in_a_session_of_its_own,
    "ptrace": lambda _: _call("ptrace", PTRACE_ATTACH, os.getppid(), None, None),
    "mount": lambda _: _call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "unshare": lambda _: _call("unshare", CLONE_NEWUSER),
    "setns": lambda _: _call("setns", 0, 0),
    "chroot": lambda _: _call("chroot", b"."),
    "personality": lambda _: _call("personality", 0),
    "bpf": lambda arguments: _call("syscall", arguments["numbers"]["bpf"], 0, None, 0),
    "keyctl": lambda arguments: _call("syscall", arguments["numbers"]["keyctl"], 0, 0, 0, 0, 0),
    "io_uring": lambda arguments: _call("syscall", arguments["numbers"]["io_uring_setup"], 1, None),
    "a module": lambda arguments: _call("syscall", arguments["numbers"]["finit_module"], 0, b"", 0),
    "kexec": lambda arguments: _call("syscall", arguments["numbers"]["kexec_load"], 0, 0, None, 0),
    "read": _read,
    "write": _write,
    "remove": _remove,
    "write here": _write_here,
    "signal the worker": lambda arguments: os.kill(arguments["worker"], 0),
    "kill the fork server": lambda _: os.kill(os.getppid(), signal.SIGTERM),
    "look into others": _look_into_parents,
    "limits": _limits,
    "capabilities": _capabilities,
    "open files": _open_many_files,
    "a page to run": lambda _: len(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)),
}
