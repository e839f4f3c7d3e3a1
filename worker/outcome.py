"""How a piece of work in a child can end: a closed set. What becomes of the job's row then is the reporter's affair."""

import signal
from dataclasses import dataclass

from app.contracts.events import Finished
from app.contracts.failure import Failure, FaultKind
from worker.child import out_of_memory
from worker.pipe import Checked


@dataclass(frozen=True)
class Completed:
    """The engine did it all."""

    event: Finished | Checked


@dataclass(frozen=True)
class Refused:
    """The engine gave up and said why."""

    failure: Failure


@dataclass(frozen=True)
class Cancelled:
    """Killed because the user asked."""


@dataclass(frozen=True)
class Lost:
    """Killed because another attempt has the row now."""


@dataclass(frozen=True)
class Released:
    """Killed because this worker stops; another may take the work up."""


@dataclass(frozen=True)
class TimedOut:
    """Killed at the end of its time."""

    run_s: float


@dataclass(frozen=True)
class OutOfMemory:
    """Killed, or aborted in C++ code, for want of memory."""


@dataclass(frozen=True)
class Crashed:
    """The child ended without a word. `code` is negative for a signal, None when the fork server died with it."""

    code: int | None
    log: str


Failing = Refused | TimedOut | OutOfMemory | Crashed
Outcome = Completed | Cancelled | Lost | Released | Failing


def failure_of(outcome: Failing) -> Failure:
    """What to tell the user."""
    match outcome:
        case Refused(failure):
            return failure
        case TimedOut(run_s):
            return Failure(
                kind=FaultKind.USER,
                code="RUN_TIME_EXCEEDED",
                message=f"it was not done after {run_s:g} s of running",
                hint="raise limits.run_s, or ask for less: fewer samples, fewer steps",
            )
        case OutOfMemory():
            return out_of_memory()
        case Crashed(code):
            return Failure(
                kind=FaultKind.TRANSIENT,
                code="WORKER_LOST" if code in (None, -signal.SIGKILL) else "WORKER_CRASHED",
                message=f"the process that did the work {_describe(code)}",
                hint="try again; if it happens each time, report it with the id",
            )


def _describe(code: int | None) -> str:
    if code is None:
        return "was lost"
    if code == -signal.SIGKILL:
        return "was killed, as the kernel does when the machine has no memory left"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended early with status {code}"
