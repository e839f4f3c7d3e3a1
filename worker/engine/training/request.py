"""What a training is asked to do, and what it gives back. No work is done here."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.contracts.events import Trained
from app.contracts.job_spec import Task
from app.contracts.training import TrainingOptions
from worker.engine.data import Dataset
from worker.engine.graph import Graph
from worker.engine.session import Device
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.checkpoints import Checkpoints, Forgotten


class Regularizer(Protocol):
    """What draws weights somewhere while they learn, such as to zero. `student` is the module in training."""

    bears_normalization: bool
    """Whether weights may be normalised behind, where their size has no effect."""

    def after_backward(self, student: TorchGraph) -> None:
        """Change gradients, in place."""

    def after_update(self, student: TorchGraph, done: float) -> None:
        """Change weights in place or grow stronger; `done` is the share of the training behind, 0 to 1."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of it."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""


@dataclass(frozen=True)
class Telling:
    """Whom a training tells: share done, message and seconds left; warnings; and points of the curve."""

    progress: Callable[[float, str, float | None], None] = lambda _share, _message, _remaining_s: None
    warn: Callable[[str], None] = lambda _: None
    point: Callable[[Trained], None] = lambda _: None
    step: int = 0
    round: int | None = None


@dataclass(frozen=True)
class Request:
    """A graph to train. `graph` itself stays as it is.

    `layers` are names of the nodes whose weights move; None: all. `teacher` is what `options.distill` learns from.
    `processes` train together, each with its own part of every update and, where `device` is cuda, its own GPU.
    """

    graph: Graph
    options: TrainingOptions
    data: Dataset
    device: Device
    seed: int = 0
    task: Task | None = None
    teacher: Graph | None = None
    layers: Collection[str] | None = None
    regularizer: Regularizer | None = None
    checkpoints: Checkpoints = field(default_factory=Forgotten)
    telling: Telling = Telling()
    processes: int = 1


@dataclass(frozen=True)
class Outcome:
    """The trained graph, the curve, and what people should know of it."""

    graph: Graph
    curve: Sequence[Trained]
    notes: Sequence[str]
