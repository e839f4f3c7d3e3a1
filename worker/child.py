"""What runs between fork and exit of a child: confine itself, carry out the order, say how it ended. No engine in it.

A child knows its order and its folder. It never sees the database, the broker, storage or a secret.
"""

import errno
import pkgutil
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from app.contracts.events import Failed
from app.contracts.failure import Failure, FaultKind, SlimlineError
from worker.confinement import Confinement, confine
from worker.pipe import write_event

ORDER_FILE = "order.json"
"""Where the supervisor leaves the order, in the child's folder."""


class Order(BaseModel):
    """What a child is to do: call `entry`, a "module:function", with `arguments` and a way to say events."""

    model_config = ConfigDict(frozen=True)

    entry: str
    arguments: dict[str, JsonValue]
    confinement: Confinement


_OUT_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "failed to allocate memory", "out of memory")
_BAD_ALLOC = ("bad_alloc", "bad allocation")
_LONGEST_MESSAGE = 2000


def carry_out(order: Path, parent: int, events: int) -> int:
    """Do what the file `order` says, writing events to the pipe `events`; returns the exit code. After a fork only."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    say = partial(write_event, events)
    try:
        work = Order.model_validate_json(order.read_bytes())
        confine(work.confinement, order.parent, parent)
        pkgutil.resolve_name(work.entry)(work.arguments, say)
    except Exception as error:  # noqa: BLE001 - the edge of the child: whatever it was is told
        traceback.print_exc(file=sys.stderr)
        say(Failed(failure=explain(error)))
        return 1
    return 0


def explain(error: Exception) -> Failure:
    """The failure to tell the user. Of a defect only that it is one: its trace and its paths are for the log."""
    match error:
        case SlimlineError():
            return _cut(error.failure)
        case OSError(errno=errno.ENOSPC):
            return Failure(
                kind=FaultKind.TRANSIENT,
                code="WORKER_DISK_FULL",
                message="the worker's disk is full",
                hint="try again later; the operator must make room where SLIMLINE_WORK_DIR points",
            )
        case OSError(errno=errno.EFBIG):
            return Failure(
                kind=FaultKind.USER,
                code="FILE_TOO_LARGE",
                message="a file that the work needs would be larger than one job may write",
                hint="send a smaller model; the operator can raise SLIMLINE_JOB_FILE_BYTES",
            )
        case RecursionError():
            return Failure(
                kind=FaultKind.USER,
                code="GRAPH_TOO_DEEP",
                message="something in the file is nested too deep",
                hint="flatten the control flow before exporting",
            )
        case _ if is_out_of_memory(error):
            return out_of_memory()
    return Failure(
        kind=FaultKind.OURS,
        code="ENGINE_DEFECT",
        message=f"Slimline failed on this input ({type(error).__name__}); this is a defect of Slimline",
        hint="report it with the job's id; the worker's log has the details",
    )


def _cut(failure: Failure) -> Failure:
    """Names in an upload may be as long as it is; what is told of it is stored, and read by people."""
    if len(failure.message) <= _LONGEST_MESSAGE and len(failure.node or "") <= _LONGEST_MESSAGE:
        return failure
    message, node = failure.message[:_LONGEST_MESSAGE] + "…", (failure.node or "")[:_LONGEST_MESSAGE] or None
    return failure.model_copy(update={"message": message, "node": node})


def out_of_memory() -> Failure:
    """The work needs more memory than one job may use."""
    return Failure(
        kind=FaultKind.USER,
        code="OUT_OF_MEMORY",
        message="the work needs more memory than one job may use",
        hint="use fewer samples or a smaller model; the operator can raise SLIMLINE_JOB_MEMORY_BYTES",
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: torch and ONNX Runtime say so only in the text of a RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in (*_OUT_OF_MEMORY, *_BAD_ALLOC))


def looks_out_of_memory(log: str) -> bool:
    """Whether the log of a crashed child ends in an allocation that C++ code did not survive."""
    return any(sign in log for sign in _BAD_ALLOC)
