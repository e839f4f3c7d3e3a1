"""The teacher: matched with the student, run without gradients, its answers stored. Losses are computed elsewhere."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.session import Device
from worker.engine.torch_graph import TorchGraph
from worker.engine.torch_graph.dtypes import held_as
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.answers import Answer, Store
from worker.engine.training.objective.outputs import Scores
from worker.engine.training.objective.watching import Call, Watch, is_float


class TeacherGraph:
    """Runs a teacher on a student's inputs. It learns nothing, and is no part of the student's module."""

    def __init__(self, graph: Graph, student: Graph, device: Device) -> None:
        """Raises SlimlineError TEACHER_MISMATCH for another number of inputs, or where torch cannot run the graph."""
        self.graph = graph
        self.module = TorchGraph(graph).requires_grad_(requires_grad=False).to(device)
        given, wanted = ([each.name for each in one.inputs] for one in (student, graph))
        if len(given) != len(wanted):
            raise _mismatch(f"it takes {len(wanted)} inputs, the student {len(given)}")
        self._order = [given.index(name) for name in wanted] if set(given) == set(wanted) else range(len(wanted))
        self._types = [held_as(ir.DataType[each.dtype.upper()]) for each in graph.inputs]

    def adapt(self, batch: TrainingBatch) -> TrainingBatch:
        """`batch`, made for the student, with inputs in the teacher's order and precision."""
        given = [batch.inputs[index] for index in self._order]
        return replace(batch, inputs=[_as_type(each, dtype) for each, dtype in zip(given, self._types, strict=True)])

    @torch.no_grad()
    def run(self, watch: Watch, batch: TrainingBatch) -> Call:
        """Raises SlimlineError TEACHER_MISMATCH for inputs of other types or shapes than it takes."""
        try:
            return watch.run(self.module, self.adapt(batch))
        except SlimlineError as error:
            if error.failure.code != "INPUTS_MISMATCH":
                raise
            raise _mismatch(f"of the student's inputs, its {error.failure.message}") from error


@dataclass(frozen=True)
class Wanted:
    """What losses need of a teacher's call: scores, outputs by their number, inner tensors by name."""

    scores: Scores | None = None
    outputs: Sequence[int] = ()
    features: Sequence[str] = ()

    def names(self) -> list[str]:
        """Of the tensors to watch."""
        return [*(self.scores.watched if self.scores else ()), *self.features]

    def read(self, call: Call) -> Answer:
        """The answer in a call."""
        return Answer(
            self.scores.read(call) if self.scores else None,
            tuple(call.outputs[index] for index in self.outputs),
            tuple(call.seen.get(name) for name in self.features),
        )

    def join(self, tensors: Sequence[torch.Tensor]) -> Answer:
        """The answer whose `tensors` were stored."""
        return Answer(tensors[0], tensors[1:]) if self.scores else Answer(None, tensors)


class Teacher:
    """Answers batches. Answers to samples that come unchanged are stored where `is_storing`."""

    def __init__(self, graph: TeacherGraph, wanted: Wanted) -> None:
        self._graph, self._wanted = graph, wanted
        self._watch = Watch(graph.module, wanted.names())
        self._store = Store()
        self.is_storing = False

    def answer(self, batch: TrainingBatch) -> Answer:
        """What it says to `batch`, on the device of its inputs."""
        if not self.is_storing or batch.is_augmented:
            return self._run(batch)
        known: list[torch.Tensor] | None = self._recall(batch)
        if known is not None:
            return self._wanted.join([each.to(batch.inputs[0].device) for each in known])
        answer = self._run(batch)
        self._remember(batch, answer)
        return answer

    def _run(self, batch: TrainingBatch) -> Answer:
        return self._wanted.read(self._graph.run(self._watch, batch))

    def _recall(self, batch: TrainingBatch) -> list[torch.Tensor] | None:
        return self._store.find(batch.indices.tolist())

    def _remember(self, batch: TrainingBatch, answer: Answer) -> None:
        self._store.put(batch.indices.tolist(), answer)


def match_outputs(student: Graph, teacher: Graph, numbers: Iterable[int], calls: tuple[Call, Call]) -> list[int]:
    """The teacher's outputs that stand for the student's outputs `numbers`: those of the same names, else positions.

    `calls` are of the student and the teacher, on one batch. Raises SlimlineError TEACHER_MISMATCH.
    """
    own, others = ([each.name for each in graph.outputs] for graph in (student, teacher))
    numbers = list(numbers)
    if all(own[number] in others for number in numbers):
        matched = [others.index(own[number]) for number in numbers]
    elif len(own) == len(others):
        matched = numbers
    else:
        raise _mismatch(f"its outputs are {', '.join(others)}, the student's {', '.join(own)}")
    for number, other in zip(numbers, matched, strict=True):
        mine, theirs = calls[0].outputs[number], calls[1].outputs[other]
        if not is_float(theirs) or mine.shape != theirs.shape:
            raise _mismatch(f"its output {others[other]!r} is {_told(theirs)}, the student's {_told(mine)}")
    return matched


def _as_type(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Real numbers in the precision that the teacher takes; others as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() and dtype.is_floating_point else tensor


def _told(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "no tensor"
    return f"{value.dtype}".removeprefix("torch.") + f" {list(value.shape)}"


def _mismatch(what: str) -> SlimlineError:
    return SlimlineError(
        "TEACHER_MISMATCH",
        f"the teacher does not fit the student: {what}",
        hint="Name a teacher with the student's inputs and outputs; losses on features take one with other outputs.",
    )
