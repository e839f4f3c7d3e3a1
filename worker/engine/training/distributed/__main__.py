"""One process of a training, started by `launch`: it trains its part of every update. Not meant for people."""

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import torch
from torch import distributed

from app.contracts.failure import SlimlineError
from worker.engine.training.distributed.assignment import open_assignment, read_start, write_trained
from worker.engine.training.distributed.team import Team
from worker.engine.training.distributed.words import End, Progress, Word
from worker.engine.training.request import Telling
from worker.engine.training.state import State, write_state
from worker.engine.training.training import train_in

_PATIENCE = timedelta(days=1)
"""So long one may wait for the leader to judge. A death ends all of them by way of the process that started them."""
Say = Callable[[Word], None]


@dataclass(frozen=True)
class _Handed:
    """Checkpoints that are handed to the process that started this one, as files in `folder`."""

    folder: Path
    say: Say
    _numbers: "count[int]" = field(default_factory=count)

    def load(self) -> State | None:
        """See `Checkpoints`."""
        return read_start(self.folder)

    def save(self, state: State) -> None:
        """See `Checkpoints`."""
        name = f"state-{next(self._numbers)}.npz"
        write_state(self.folder / name, state)
        self.say(Word(state=name))


def main() -> None:
    """Train. After a failure it waits for its end: a partner that loses it would fail too, and hide the reason."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt is the parent's to tell
    folder, team = Path(sys.argv[1]), Team(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    say = _open_voice()
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    try:
        _train(folder, team, say)
    except SlimlineError as error:
        say(Word(failure=error.failure))
    except Exception as error:  # noqa: BLE001 - the edge of the process: whatever it was is told
        traceback.print_exc(file=sys.stderr)
        say(Word(defect=f"{type(error).__name__}: {error}"))
    else:
        return
    threading.Event().wait()


def _train(folder: Path, team: Team, say: Say) -> None:
    with open_assignment(folder) as request:
        if request.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if request.device == "cuda" else "gloo",
            init_method=f"file://{folder / 'meeting'}",
            rank=team.rank,
            world_size=team.world,
            timeout=_PATIENCE,
        )
        checkpoints = _Handed(folder, say)
        telling = _speak(say, request.telling) if team.is_led_here else request.telling
        outcome = train_in(team, replace(request, checkpoints=checkpoints, telling=telling))
    if team.is_led_here:
        write_trained(outcome.graph, folder)
        say(Word(end=End(curve=list(outcome.curve), notes=list(outcome.notes))))
    distributed.destroy_process_group()


def _speak(say: Say, telling: Telling) -> Telling:
    return replace(
        telling,
        progress=lambda share, message, remaining_s: say(
            Word(progress=Progress(share=share, message=message, remaining_s=remaining_s))
        ),
        warn=lambda text: say(Word(warning=text)),
        point=lambda point: say(Word(point=point)),
    )


def _open_voice() -> Say:
    """Standard output, for words only: what libraries print there goes to standard error."""
    voice = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(word: Word) -> None:
        voice.write(word.model_dump_json(exclude_none=True) + "\n")
        voice.flush()

    return say


def _end_with_parent(folder: Path) -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns when the other end is closed
    shutil.rmtree(folder, ignore_errors=True)  # which the parent had no time for
    os._exit(1)


if __name__ == "__main__":
    main()
