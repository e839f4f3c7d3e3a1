"""Runs the measuring in a clean process: one that has nothing in memory but ONNX Runtime. Its main is `__main__`."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from app.contracts.facts import TensorSpec
from app.contracts.failure import Failure, FaultKind, SlimlineError
from app.contracts.job_spec import Task
from app.contracts.measurement import Accuracy, Fidelity, Latency
from app.contracts.preprocess import Preprocess
from worker.engine.samples import Guess
from worker.engine.session import Device

_PACKAGES = Path(__file__).parents[3]


class DataFile(BaseModel):
    """A dataset's file, what its user calls it, and how its samples become inputs."""

    path: Path
    filename: str | None = None
    preprocess: Preprocess | None = None

    def absolute(self) -> "DataFile":
        """The same file, found from any folder."""
        return self.model_copy(update={"path": self.path.absolute()})


class Request(BaseModel):
    """What to measure: a compressed model beside its original, on data or made-up inputs. Paths are absolute."""

    original: Path
    compressed: Path
    inputs: list[TensorSpec]
    source: DataFile | Guess
    note: str | None = None
    task: Task | None
    device: Device
    latency_s: float


class Side(BaseModel):
    """What was measured of one of the two models."""

    accuracy: Accuracy | None
    latency: Latency
    peak_memory_bytes: int | None


class Answer(BaseModel):
    """What the clean process found."""

    original: Side
    compressed: Side
    fidelity: Fidelity | None
    notes: list[str]


class Line(BaseModel):
    """One line of the clean process' standard output: samples done so far, or the end."""

    samples: int = 0
    answer: Answer | None = None
    failure: Failure | None = None


def measure_cleanly(request: Request, progress: Callable[[int], None]) -> Answer:
    """Measure in a new process. Raises the SlimlineError met there.

    Raises WORKER_LOST, which is worth another try, if it was killed, and ARTIFACT_CRASHED if it died by itself.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.engine.measure"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_PACKAGES,  # `-m` looks for modules there first: never in a folder that holds uploads
    )
    with process:
        try:
            for line in _converse(process, request):
                if line.failure:
                    raise _rebuilt(line.failure)
                if line.answer:
                    return line.answer
                progress(line.samples)
            raise _died(process.wait())
        finally:
            process.kill()  # it has nothing left to say, or nobody listens any more


def _converse(process: subprocess.Popen[str], request: Request) -> Iterator[Line]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes")
    with suppress(BrokenPipeError):  # it is dead already
        process.stdin.write(request.model_dump_json())
        process.stdin.close()
    for text in process.stdout:
        if text.endswith("\n"):  # else it died in mid-word
            yield Line.model_validate_json(text)


def _died(code: int) -> SlimlineError:
    if code == -signal.SIGKILL:
        message = "the process that loaded and ran the artifact was killed"
        hint = "Try again. The kernel kills when the machine has no memory left."
        return SlimlineError("WORKER_LOST", message, kind=FaultKind.TRANSIENT, hint=hint)
    return SlimlineError(
        "ARTIFACT_CRASHED",
        f"the process that loaded and ran the artifact ended with code {code}",
        kind=FaultKind.OURS,
        hint="A negative code is a signal: -11 is a crash in ONNX Runtime.",
    )


def _rebuilt(failure: Failure) -> SlimlineError:
    error = SlimlineError(failure.code, failure.message)
    error.failure = failure
    return error
