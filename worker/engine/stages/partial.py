"""What is left of a step that did not come to its end: written to the workspace, told as an event, found by a retry."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from app.contracts.events import EngineEvent, PartialCheckpoint
from worker.engine.training.state import State, read_state, write_state

_KEPT = 2


@dataclass
class PartialCheckpoints:
    """The state of step `step`. `found` is the file that an earlier attempt left of it.

    Each state has a file of its own, as the one before may be being read; of older ones nothing is left.
    """

    workspace: Path
    step: int
    found: Path | None
    emit: Callable[[EngineEvent], None]
    _written: list[Path] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def load(self) -> State | None:
        """What an earlier attempt left. Raises SlimlineError CHECKPOINT_BROKEN."""
        return read_state(self.found) if self.found is not None else None

    def save(self, state: State) -> None:
        """Write `state` and tell of it."""
        path = self.workspace / f"partial-{self.step}-{next(self._numbers)}.npz"
        arriving = path.with_suffix(".part")
        write_state(arriving, state)
        arriving.rename(path)
        self._written.append(path)
        while len(self._written) > _KEPT:
            self._written.pop(0).unlink(missing_ok=True)
        self.emit(PartialCheckpoint(step=self.step, path=path.name))
        self.found = path

    def close(self) -> None:
        """The step is done: what it left midway is of no use."""
        for path in self._written:
            path.unlink(missing_ok=True)
