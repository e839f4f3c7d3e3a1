"""What a step that trains leaves behind for a retry, and finds again. Where it is kept is not known here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from worker.engine.training.state import State


class Checkpoints(Protocol):
    """The state of one step. What is saved replaces what was saved before."""

    def load(self) -> State | None:
        """What an earlier attempt left; None where there is nothing."""

    def save(self, state: State) -> None:
        """Keep `state`, durably once it was told."""


class Forgotten:
    """Keeps nothing."""

    def load(self) -> State | None:
        """Nothing."""
        return None

    def save(self, state: State) -> None:
        """Let it go."""


@dataclass(frozen=True)
class Part:
    """Part `name` of a step that trains several times: what it leaves goes with what `around` tells of the step."""

    whole: Checkpoints
    name: str
    around: Callable[[], dict[str, Any]]

    def load(self) -> State | None:
        """What this part left, if it was the one at work."""
        state = self.whole.load()
        found: State | None = state["within"] if state and state["part"] == self.name else None
        return found

    def save(self, state: State) -> None:
        """See `Checkpoints.save`."""
        self.whole.save({**self.around(), "part": self.name, "within": state})
