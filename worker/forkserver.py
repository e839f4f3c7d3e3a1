"""The fork server: a process that has the engine's libraries loaded and forks a child per order. No Celery in it.

Not multiprocessing's: that one inherits the whole environment with its secrets, runs the parent's `__main__` again in
every child, and its children hold the pipe that keeps it alive, so that they outlive a killed worker. Here every child
hangs on a lifeline, a socket: closing it, by will or by death, kills the child's whole process group.
"""

import array
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from worker.child import carry_out
from worker.confinement import lacking

ENGINE = ("worker.engine", "worker.engine.pipeline", "worker.engine.ingest")
"""What is imported before the first fork. Nothing in it may start a thread or touch a GPU on import."""

NUMBER = struct.Struct("q")
"""A lifeline tells two numbers: the child's process id, then its exit code (negative: the signal that ended it)."""

_ALLOWED = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX"}
_ALLOWED_PREFIXES = ("OMP_", "MKL_", "OPENBLAS_", "CUDA_", "NVIDIA_", "KMP_")
_MAX_MESSAGE = 65536
_FAREWELL_S = 1.0


class ForkServer:
    """The worker's handle on its fork server. Safe to use from many threads; a server that died is started again."""

    def __init__(self, preload: Sequence[str] = ENGINE) -> None:
        self._preload = preload
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server, where it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server unless it runs. Returns at once: orders wait in the socket until the imports are done."""
        with self._lock:
            self._ensure_running()

    def fork(self, order: Path, events: int, log: int) -> socket.socket:
        """Have a child forked that carries out the order in the file `order`; returns our end of its lifeline."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = [theirs.fileno(), events, log]
            try:
                with self._lock:
                    self._send(os.fsencode(order), fds)
            except BaseException:
                ours.close()
                raise
        return ours

    def stop(self) -> None:
        """End the server and with it every child."""
        with self._lock:
            self._forget()

    def _send(self, message: bytes, fds: list[int]) -> None:
        try:
            socket.send_fds(self._ensure_running(), [message], fds)
        except OSError:  # it died just now: once more, with a new one
            self._forget()
            socket.send_fds(self._ensure_running(), [message], fds)

    def _ensure_running(self) -> socket.socket:
        if self._process and self._process.poll() is not None:
            self._forget()
        if self._control is None:
            self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "worker.forkserver", str(theirs.fileno()), *self._preload],
                    env=clean_environment(os.environ),
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for the worker, which then ends us
                )
        return self._control

    def _forget(self) -> None:
        if self._control:
            self._control.close()
        if self._process:
            try:
                self._process.wait(_FAREWELL_S)
            except subprocess.TimeoutExpired:  # still importing, and so without a child
                self._process.kill()
                self._process.wait()
        self._control = self._process = None


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a child may see of `environment`: an allow-list, for a new secret is easily added and easily forgotten."""
    kept = {
        name: value for name, value in environment.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)
    }
    here = [entry or str(Path.cwd()) for entry in sys.path]
    # ONNX Runtime otherwise opens a telemetry database in HOME and starts a thread when it is imported.
    return {**kept, "PYTHONPATH": os.pathsep.join(here), "ORT_DISABLE_TELEMETRY": "1"}


class _Server:
    """The loop of the server process: orders in, children out, exit codes back."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lifelines: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)

    def serve(self) -> None:
        """Run until the worker closes its end, or dies."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that the wake-up pipe is written
        signal.set_wakeup_fd(self._wake_w)
        self._watch(self._control, self._accept)
        self._watch(self._wake_r, self._reap)
        while self._control.fileno() >= 0:
            key, _ = self._selector.select()[0]  # one at a time: reacting to one may close another
            key.data()

    def _watch(self, source: socket.socket | int, react: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, react)

    def _accept(self) -> None:
        message, fds = _receive(self._control)
        if not message:
            self._end()
            return
        lifeline, events, log = fds
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_child(Path(os.fsdecode(message)), server, fds)
        os.close(events)
        os.close(log)
        line = self._lifelines[pid] = socket.socket(fileno=lifeline)
        _tell(line, pid)
        self._watch(line, lambda: self._cut(pid))

    def _become_child(self, order: Path, server: int, fds: list[int]) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._control.close()
            for line in self._lifelines.values():
                line.close()
            lifeline, events, log = fds
            os.dup2(log, 1)
            os.dup2(log, 2)
            for fd in (self._wake_r, self._wake_w, lifeline, log):
                os.close(fd)
            code = carry_out(order, server, events)
        except BaseException:  # noqa: BLE001 - nothing may climb back into the server's loop
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _cut(self, pid: int) -> None:
        self._selector.unregister(self._lifelines[pid])
        _kill(pid)

    def _reap(self) -> None:
        os.read(self._wake_r, _MAX_MESSAGE)
        while self._lifelines and (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            _kill(ended.si_pid)  # what it started dies with it; before it is reaped, while the id is surely its own
            _, status = os.waitpid(ended.si_pid, 0)
            line = self._lifelines.pop(ended.si_pid)
            if line in self._selector.get_map():  # not cut off before
                self._selector.unregister(line)
            _tell(line, os.waitstatus_to_exitcode(status))
            line.close()

    def _end(self) -> None:
        for pid in self._lifelines:
            _kill(pid)
        self._control.close()


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    message, ancillary, _, _ = control.recvmsg(
        _MAX_MESSAGE, socket.CMSG_SPACE(3 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for _level, _kind, data in ancillary:
        fds.frombytes(data)
    return message, list(fds)


def _tell(line: socket.socket, number: int) -> None:
    try:
        line.send(NUMBER.pack(number), socket.MSG_NOSIGNAL)
    except OSError:  # no one listens any more
        return


def _kill(pid: int) -> None:
    """Kill a child that has not been reaped, and its group where it has already made one."""
    for kill in (os.kill, os.killpg):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main(control: int, preload: Sequence[str]) -> None:
    """Load `preload`, then serve the worker at the other end of the socket `control`."""
    for name in preload:
        importlib.import_module(name)
    for words in lacking(Path(tempfile.gettempdir())):
        sys.stderr.write(f"confinement of children: {words}\n")
    gc.collect()
    gc.freeze()  # a child's collector leaves these objects alone, so their pages stay shared
    _Server(socket.socket(fileno=control)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
