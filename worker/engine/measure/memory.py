"""Peak memory of loading and running a model: the rise of a fresh process' resident memory. Linux only."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from app.contracts.failure import SlimlineError
from worker.engine.session import Array, Device, open_session, run_session

_STATUS = Path("/proc/self/status")
_FIELD = re.compile(r"^(VmHWM|VmRSS):\s+(\d+) kB$", re.MULTILINE)


def peak_rise(model: Path, feed: Mapping[str, Array], *, threads: int, device: Device) -> int | None:
    """Bytes by which a forked child grows while it loads `model` and runs it once; None where that cannot be read.

    Call it in a process that has opened no session yet: ONNX Runtime's threads do not survive a fork.
    """
    if not _STATUS.is_file():
        return None
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        os._exit(_report_rise(sender, model, feed, threads, device))
    os.close(sender)
    with os.fdopen(receiver) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return int(answer) if answer else None


def _report_rise(sender: int, model: Path, feed: Mapping[str, Array], threads: int, device: Device) -> int:
    try:
        before = _resident()["VmRSS"]
        run_session(open_session(model, threads=threads, device=device), feed)
        os.write(sender, str(max(0, _resident()["VmHWM"] - before)).encode())
    except SlimlineError:  # the caller runs the model too, and reports why it does not run
        return 1
    return 0


def _resident() -> dict[str, int]:
    return {name: int(kibibytes) * 1024 for name, kibibytes in _FIELD.findall(_STATUS.read_text())}
