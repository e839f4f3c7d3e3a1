"""Starts the processes of a training and passes on what they tell. What one of them does is `__main__`.

Not torchrun's own launcher: it would open a port, start processes again and keep an agent running. Here the
environment is torchrun's, the processes find each other by a file, and none of them outlives the training.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread

from app.contracts.failure import Failure, FaultKind, SlimlineError
from worker.engine.training.distributed import loopback
from worker.engine.training.distributed.assignment import read_trained, write_assignment
from worker.engine.training.distributed.words import End, Word
from worker.engine.training.request import Outcome, Request
from worker.engine.training.state import read_state

_PACKAGES = Path(__file__).parents[4]
_DEATH_S = 1.0
"""So long a process that fails for another's death may know of it before we do."""
_Process = subprocess.Popen[str]


def why_not_together(request: Request) -> str | None:
    """Why `request` cannot be trained in several processes; None where it can."""
    if request.regularizer is not None:
        return "what draws weights to zero works in one process"
    if request.data.path is None:
        return "the data is in no file that others could open"
    if not loopback.raise_loopback():
        return "there is no loopback interface to talk over"
    return None


def train_together(request: Request) -> Outcome:
    """Train in `request.processes` processes. However this ends, none of them is left.

    Raises the SlimlineError that any of them raises, TRAINING_PROCESS_DIED, and RuntimeError for a defect in one.
    """
    with TemporaryDirectory(prefix="slimline-training-") as name:
        folder = Path(name)
        write_assignment(request, folder)
        with _start(folder, request.processes) as processes:
            for rank, word in _listen(processes):
                match word:
                    case Word(failure=Failure() as failure):
                        raise SlimlineError.of(failure)
                    case Word(defect=str(defect)):
                        _check_deaths(processes)
                        raise RuntimeError(f"in training process {rank}: {defect}")
                    case Word(end=End() as end):
                        return Outcome(read_trained(folder), end.curve, end.notes)
                    case _:
                        _pass_on(word, request, folder)
    raise RuntimeError("the training processes ended without a result")


def _pass_on(word: Word, request: Request, folder: Path) -> None:
    if word.progress is not None:
        request.telling.progress(word.progress.share, word.progress.message, word.progress.remaining_s)
    if word.warning is not None:
        request.telling.warn(word.warning)
    if word.point is not None:
        request.telling.point(word.point)
    if word.state is not None:
        path = folder / word.state
        request.checkpoints.save(read_state(path))
        path.unlink()


@contextmanager
def _start(folder: Path, world: int) -> Iterator[Sequence[_Process]]:
    """The processes, one for each rank; at the end they are killed."""
    processes: list[_Process] = []
    try:
        processes.extend(_open(folder, os.environ | _environment(rank, world)) for rank in range(world))
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _open(folder: Path, environment: Mapping[str, str]) -> _Process:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "worker.engine.training.distributed", str(folder)],
        stdin=subprocess.PIPE,  # its end tells them that we are gone
        stdout=subprocess.PIPE,
        text=True,
        cwd=_PACKAGES,  # `-m` looks for modules there first: never in a folder that holds uploads
        env=environment,
    )


def _environment(rank: int, world: int) -> dict[str, str]:
    """What torchrun would set; and they talk over loopback only, and share the processors."""
    threads = max(1, (os.cpu_count() or 1) // world)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "GLOO_SOCKET_IFNAME": loopback.NAME,
        "NCCL_SOCKET_IFNAME": loopback.NAME,
    }


def _listen(processes: Sequence[_Process]) -> Iterator[tuple[int, Word]]:
    """What each says, with its rank, until all have ended. Raises SlimlineError TRAINING_PROCESS_DIED."""
    lines: SimpleQueue[tuple[int, str | None]] = SimpleQueue()
    for rank, process in enumerate(processes):
        Thread(target=_read, args=(rank, process, lines), daemon=True, name=f"training-{rank}").start()
    talking = len(processes)
    while talking:
        rank, line = lines.get()
        if line is not None:
            yield rank, Word.model_validate_json(line)
        else:
            talking -= 1
            _check_death(rank, processes[rank].wait())


def _read(rank: int, process: _Process, lines: "SimpleQueue[tuple[int, str | None]]") -> None:
    if process.stdout is None:
        raise ValueError("the process was started without pipes")
    with process.stdout:
        for line in process.stdout:
            lines.put((rank, line))
    lines.put((rank, None))


def _check_deaths(processes: Sequence[_Process]) -> None:
    """A process that loses a partner fails too: the partner's death is what is told."""
    deadline = time.monotonic() + _DEATH_S
    while time.monotonic() < deadline:
        for rank, process in enumerate(processes):
            _check_death(rank, process.poll() or 0)
        time.sleep(_DEATH_S / 20)


def _check_death(rank: int, code: int) -> None:
    if code != 0:
        raise SlimlineError(
            "TRAINING_PROCESS_DIED",
            f"one of the processes that train together, number {rank}, ended with code {code}",
            kind=FaultKind.TRANSIENT,
            hint="Run the job again. A negative code is a signal: -9 is a kill, often for memory.",
        )
