"""Runs one piece of work in a child and watches it: events, commands, time, memory, kill. No database, no engine."""

import io
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import psutil
import structlog

from app.contracts.events import Failed, Finished
from app.contracts.failure import Failure, FaultKind
from worker.child import ORDER_FILE, Order, looks_out_of_memory
from worker.confinement import MOST_TASKS
from worker.forkserver import NUMBER, ForkServer
from worker.outcome import Cancelled, Completed, Crashed, Lost, Outcome, OutOfMemory, Refused, Released, TimedOut
from worker.pipe import Checked, ChildEvent, EventReader, MalformedEventError

TICK_S = 0.25
"""How often the clock, memory and the row's word are looked at. Events and the child's end wake the loop at once."""

_MEMORY_S = 1.0
_DEATH_S = 10.0
_MAX_LOG = 16 * 1024

_log = structlog.get_logger(__name__)


class Command(Enum):
    """What the row says about the work."""

    CONTINUE = auto()
    CANCEL = auto()
    GIVE_UP = auto()


@dataclass(frozen=True)
class Watch:
    """What to hold a child to, and whom to tell. Both callbacks run in the thread that called `Supervisor.run`."""

    run_s: float
    memory_bytes: int
    on_event: Callable[[ChildEvent], None]
    on_tick: Callable[[], Command]
    """Asked every TICK_S seconds at least."""


class Supervisor:
    """Runs children of one fork server, each watched by the thread that asked for it."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self._stop_at = math.inf

    @property
    def is_stopping(self) -> bool:
        """Whether no new work should be begun."""
        return self._stop_at < math.inf

    def stop(self, grace_s: float = 0) -> None:
        """End as `Released` all work that is not done after `grace_s` seconds. Safe in a signal handler."""
        self._stop_at = min(self._stop_at, time.monotonic() + grace_s)

    def is_over(self) -> bool:
        """Whether work that still runs is to be handed back now."""
        return time.monotonic() >= self._stop_at

    def run(self, order: Order, folder: Path, watch: Watch) -> Outcome:
        """Have `order` carried out in `folder` and wait for its end. However this returns, no process of it is left."""
        path = folder / ORDER_FILE
        path.write_text(order.model_dump_json())
        with ExitStack() as stack:
            events, events_w = _open_pipe(stack)
            log, log_w = _open_pipe(stack)
            lifeline = stack.enter_context(self._server.fork(path, events_w.fileno(), log_w.fileno()))
            events_w.close()
            log_w.close()
            child = _Child(lifeline, events, log, watch)
            stack.callback(child.close)
            child.follow(self.is_over)
            child.end()
            return child.outcome()


class _Child:
    """One child seen from the worker."""

    def __init__(self, lifeline: socket.socket, events: io.FileIO, log: io.FileIO, watch: Watch) -> None:
        self._lifeline = lifeline
        self._events = EventReader(events.fileno())
        self._watch = watch
        self._selector = selectors.DefaultSelector()
        self._selector.register(lifeline, selectors.EVENT_READ, self._hear)
        self._selector.register(events, selectors.EVENT_READ, lambda: self._read_events(events))
        self._selector.register(log, selectors.EVENT_READ, lambda: self._read_log(log))
        self._deadline = time.monotonic() + watch.run_s
        self._tick_at = self._weigh_at = time.monotonic()
        self._told = b""
        self._log = b""
        self._alive = True
        self._last: Finished | Checked | Failed | None = None
        self._killed: Outcome | None = None

    def follow(self, is_over: Callable[[], bool]) -> None:
        """Watch until it has ended or there is a reason to kill it."""
        while self._alive and self._killed is None:
            self._turn(TICK_S)
            self._killed = self._killed or self._find_reason(is_over)

    def end(self) -> None:
        """Kill what still runs and wait until it is gone; its last words are read."""
        with suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)
        give_up_at = time.monotonic() + _DEATH_S  # a driver may hold a dying process for long
        while self._alive and time.monotonic() < give_up_at:
            self._turn(TICK_S)
        if len(self._numbers) == 1:
            self._end_orphans()
        while self._turn(0):
            pass

    def close(self) -> None:
        """End it without caring what it says, as after an exception; nothing to do after `end`."""
        self._killed = self._killed or Lost()
        self.end()
        self._selector.close()

    def outcome(self) -> Outcome:
        """How it ended. What was complete before the kill came through is complete."""
        if isinstance(self._last, Finished | Checked):
            return Completed(self._last)
        if self._killed is not None:
            return self._killed
        log = self._log.decode(errors="replace")
        if isinstance(self._last, Failed):
            if self._last.failure.kind == FaultKind.OURS:
                _log.error("a defect", code=self._last.failure.code, log=log)
            return Refused(self._last.failure)
        return self._explain_crash(log)

    def _end_orphans(self) -> None:
        """The fork server died. The kernel killed the child with it, but not what the child had started."""
        with suppress(ProcessLookupError):
            os.killpg(self._numbers[0], signal.SIGKILL)

    def _turn(self, timeout: float) -> bool:
        """React to what is ready; False when nothing was."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            key.data()
        return bool(ready)

    def _hear(self) -> None:
        told = b""
        with suppress(ConnectionResetError):
            told = self._lifeline.recv(2 * NUMBER.size)
        self._told += told
        if not told:
            self._alive = False
            self._selector.unregister(self._lifeline)

    def _read_events(self, pipe: io.FileIO) -> None:
        try:
            for event in self._events.read():
                if isinstance(event, Finished | Checked | Failed):
                    self._last = event
                elif self._killed is None:
                    self._pass_on(event)
        except MalformedEventError as error:
            _log.error("malformed event from a child", reason=str(error)[:_MAX_LOG])
            self._killed = self._killed or Refused(_garbled())
        if self._events.at_end:
            self._selector.unregister(pipe)

    def _pass_on(self, event: ChildEvent) -> None:
        """The time that storing takes, which may be long while a store is away, is not the child's."""
        began = time.monotonic()
        self._watch.on_event(event)
        self._deadline += time.monotonic() - began

    def _read_log(self, pipe: io.FileIO) -> None:
        chunk = pipe.read(_MAX_LOG) or b""
        self._log = (self._log + chunk)[-_MAX_LOG:]
        if not chunk:
            self._selector.unregister(pipe)

    def _find_reason(self, is_over: Callable[[], bool]) -> Outcome | None:
        now = time.monotonic()
        if now < self._tick_at:
            return None
        self._tick_at = now + TICK_S
        if is_over():
            return Released()
        if now >= self._deadline:
            return TimedOut(self._watch.run_s)
        if now >= self._weigh_at:
            self._weigh_at = now + _MEMORY_S  # it looks at every process of the machine
            memory, threads = self._weigh()
            if memory > self._watch.memory_bytes:
                return OutOfMemory()
            if threads > MOST_TASKS:
                return Refused(_too_many_threads())
        return _REASONS[self._watch.on_tick()]

    def _weigh(self) -> tuple[int, int]:
        """Bytes of memory and threads of the child and what it started; files they mapped are not counted."""
        total = threads = 0
        with suppress(psutil.NoSuchProcess):
            for pid in self._numbers[:1]:
                child = psutil.Process(pid)
                for process in (child, *child.children(recursive=True)):
                    memory = process.memory_info()
                    total += memory.rss - memory.shared
                    threads += process.num_threads()
        return total, threads

    @property
    def _numbers(self) -> list[int]:
        """What the lifeline has told: the process id, then the exit code."""
        whole = len(self._told) // NUMBER.size * NUMBER.size
        return [number for (number,) in NUMBER.iter_unpack(self._told[:whole])]

    def _explain_crash(self, log: str) -> Outcome:
        code = self._numbers[1] if len(self._numbers) > 1 else None
        _log.error("a child crashed", code=code, log=log)
        if code == -signal.SIGXCPU:
            return TimedOut(self._watch.run_s)
        return OutOfMemory() if looks_out_of_memory(log) else Crashed(code, log)


_REASONS: dict[Command, Outcome | None] = {
    Command.CONTINUE: None,
    Command.CANCEL: Cancelled(),
    Command.GIVE_UP: Lost(),
}


def _open_pipe(stack: ExitStack) -> tuple[io.FileIO, io.FileIO]:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    return stack.enter_context(io.FileIO(ours, "r")), stack.enter_context(io.FileIO(theirs, "w"))


def _too_many_threads() -> Failure:
    return Failure(
        kind=FaultKind.USER,
        code="TOO_MANY_THREADS",
        message=f"the work takes more than {MOST_TASKS:,} threads, in all its processes together",
        hint="ask for less at a time",
    )


def _garbled() -> Failure:
    return Failure(
        kind=FaultKind.OURS,
        code="ENGINE_DEFECT",
        message="the engine reported something that is no event; this is a defect of Slimline",
        hint="report it with the job's id; the worker's log has the details",
    )
