"""What a method is and what it is given. No method lives here, and nothing here knows one."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from app.contracts.events import EngineEvent, LayerRecord, Log
from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Task
from app.contracts.preflight import LEFT_OUT
from app.contracts.recipe import Step
from worker.engine.data import Dataset
from worker.engine.graph import Graph, Layer
from worker.engine.samples import Samples
from worker.engine.session import Device
from worker.engine.training.checkpoints import Checkpoints, Forgotten
from worker.engine.training.request import Telling
from worker.engine.wording import counted

StepT = TypeVar("StepT", bound=Step)


@dataclass
class Record:
    """What a step did to each layer or why it left it alone, and notes for people."""

    step: int
    method: str
    layers: list[LayerRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def done(self, layer: Layer, **facts: Any) -> None:
        """`facts` are fields of LayerRecord: bits, sparsity, sqnr_db, ..."""
        self._add(layer, done=True, **facts)

    def skipped(self, layer: Layer, reason: str, **facts: Any) -> None:
        """Say why `layer` was left alone."""
        self._add(layer, done=False, reason=reason, **facts)

    def note(self, text: str) -> None:
        """Say something about the step as a whole."""
        self.notes.append(text)

    def note_held_back(self) -> None:
        """Say how many of the chosen layers were left alone, and the commonest reason."""
        if reasons := self._reasons():
            share = f"{reasons.total()} of {counted(len(self.layers), 'layer')}"
            self.note(f"{share} left alone; {_commonest(reasons)}")

    def refusal(self, code: str, hint: str) -> SlimlineError:
        """The error of a step that found no layer to work on, with the commonest reason of those it chose."""
        if not self.layers:
            return SlimlineError(code, f"{self.method} works on layers, and this model has none with constant weights")
        if reasons := self._reasons():
            of_chosen = f"none of the {counted(reasons.total(), 'chosen layer')}"
            return SlimlineError(code, f"{self.method} works on {of_chosen}; {_commonest(reasons)}", hint=hint)
        return SlimlineError(
            code,
            f"{self.method} has nothing to do: `include` and `exclude` leave out every layer",
            hint="Widen `include`, or take names out of `exclude`.",
        )

    def _reasons(self) -> Counter[str]:
        """Why chosen layers were left alone, and how many for each reason."""
        return Counter(each.reason for each in self.layers if each.reason and each.reason != LEFT_OUT)

    def _add(self, layer: Layer, **facts: Any) -> None:
        self.layers.append(LayerRecord(step=self.step, method=self.method, layer=layer.name, op=layer.op, **facts))


def _commonest(reasons: Counter[str]) -> str:
    reason, times = reasons.most_common(1)[0]
    return f"the reason: {reason}" if times == reasons.total() else f"the reason of {times}: {reason}"


class TellProgress(Protocol):
    """Takes the share of the step done, 0 to 1, a message, and the seconds it still takes where they are known."""

    def __call__(self, share: float, message: str, remaining_s: float | None = None) -> None:
        """Tell it."""


class Models(Protocol):
    """Other graphs than the one a step is given: the original, results of earlier steps, other uploads."""

    def find(self, name: str | int) -> Graph:
        """`original`, the result of an earlier step by its index, or another model by its id or path.

        Raises SlimlineError MODEL_UNKNOWN, TEACHER_NOT_EARLIER, or what its ingest raises.
        """


class NoModels:
    """There are no others."""

    def find(self, name: str | int) -> Graph:
        """Raises SlimlineError MODEL_UNKNOWN."""
        raise SlimlineError("MODEL_UNKNOWN", f"there is no model {name!r} beside the one that is compressed")


@dataclass(frozen=True)
class StepContext:
    """What a step may use besides the graph.

    `samples` are inputs to try things on, from any data given or made up. `task` is what labels are for where the job
    says so. `say` is for log lines and points of a loss curve. `devices`: how many there are of `device`.
    """

    record: Record
    calibration: Dataset | None
    samples: Samples
    seed: int
    device: Device
    progress: TellProgress
    training: Dataset | None = None
    task: Task | None = None
    models: Models = field(default_factory=NoModels)
    checkpoints: Checkpoints = field(default_factory=Forgotten)
    say: Callable[[EngineEvent], None] = lambda _: None
    devices: int = 1

    def telling(self) -> Telling:
        """Whom a training within the step tells."""
        return Telling(
            progress=self.progress,
            warn=lambda text: self.say(Log(level="warning", message=f"{self.record.method}: {text}")),
            point=self.say,
            step=self.record.step,
        )


class Method(ABC, Generic[StepT]):
    """A compression method: graph in, graph out. Stateless; its options are the step."""

    step_type: ClassVar[type[Step]]
    takes_integers: ClassVar[bool] = True
    """Whether it works on a graph that holds integer nodes; where not, it raises ALREADY_QUANTIZED."""
    makes_integers: ClassVar[bool] = False
    """Whether its result holds integer nodes."""

    @abstractmethod
    def apply(self, graph: Graph, step: StepT, context: StepContext) -> Graph:
        """The compressed graph; `graph` itself stays as it was.

        Tells `context.record` what became of every layer. Raises SlimlineError where nothing could be done.
        """

    @abstractmethod
    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """Why the method with its default options leaves `layer` of `graph` alone; None if it works on it."""

    def obstacles(self, graph: Graph) -> dict[str, str | None]:
        """The obstacle of every layer of `graph`, by its name."""
        return {layer.name: self.obstacle(graph, layer) for layer in graph.layers()}


def split_layers(
    graph: Graph, step: Step, context: StepContext, obstacle: Callable[[Graph, Layer], str | None]
) -> list[Layer]:
    """The layers that `step` chooses and `obstacle` does not hold back; the others are recorded as skipped.

    Raises SlimlineError LAYER_UNKNOWN for a name or glob that matches no layer.
    """
    chosen = {id(layer.node) for layer in graph.select(step.include, step.exclude)}
    kept = []
    for layer in graph.layers():
        reason = obstacle(graph, layer) if id(layer.node) in chosen else LEFT_OUT
        if reason:
            context.record.skipped(layer, reason)
        else:
            kept.append(layer)
    return kept
