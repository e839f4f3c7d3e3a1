"""Which output of a graph holds class scores, on which axis, and where their logits are. No loss is computed here.

Legend: N samples, C classes, P positions: samples, or pixels of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from app.contracts.job_spec import Task
from worker.engine.graph import Graph
from worker.engine.training.objective.watching import Call, in_full, is_float

_MATRIX = 2
_IN_ORDER = frozenset(
    {"Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Log"}
)
"""What may stand between a Softmax and the output and leaves every element in its place."""
_OUT_OF_ORDER = frozenset({"Transpose"})


@dataclass(frozen=True)
class Ending:
    """The Softmax or LogSoftmax whose result an output is. `passed`: operators between."""

    node: ir.Node
    passed: frozenset[str]

    @property
    def is_in_order(self) -> bool:
        """Whether elements of the Softmax's input and of the output correspond, one by one."""
        return self.passed.isdisjoint(_OUT_OF_ORDER)

    @property
    def gives_logarithms(self) -> bool:
        """Whether the output holds log-probabilities, which are logits themselves."""
        return self.node.op_type == "LogSoftmax" or "Log" in self.passed

    def axis(self, rank: int) -> int | None:
        """The axis of the classes in an output of `rank`; None where it lost its place on the way."""
        moved = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", *_OUT_OF_ORDER}
        if not self.passed.isdisjoint(moved):
            return 1 if rank == _MATRIX else None
        return self.node.attributes.get_int("axis", -1) % rank


@dataclass(frozen=True)
class Scores:
    """Class scores: output number `output`, classes on `axis`.

    `logits` is the tensor that holds them before a Softmax; it is watched, as probabilities lose what is small.
    `are_probabilities` where the output has to do.
    """

    output: int
    axis: int
    logits: str | None = None
    are_probabilities: bool = False

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of the tensors that `read` needs."""
        return () if self.logits is None else (self.logits,)

    def read(self, call: Call) -> torch.Tensor:
        """Logits in the shape of the output, up to a constant for each position."""
        output: torch.Tensor = call.outputs[self.output]
        if self.logits is not None:
            return in_full(call.seen[self.logits].reshape(output.shape))
        values = in_full(output)
        return values.clamp(min=torch.finfo(values.dtype).tiny).log() if self.are_probabilities else values

    def by_position(self, scores: torch.Tensor) -> torch.Tensor:
        """What `read` gives, as [P, C]."""
        return scores.movedim(self.axis, -1).flatten(0, -2)


def find_scores(graph: Graph, outputs: Sequence[Any], task: Task | None) -> Scores | None:
    """The first floating-point output that holds class scores; `outputs` are those of a call.

    That is [N, C] for classification and [N, C, ...] for segmentation, C > 1. Where no task is known, the first result
    of a Softmax, else the first [N, C]. None for other tasks, and where there is none.
    """
    for wanted in ("softmax", "classification") if task is None else (task,):
        for index, output in enumerate(outputs):
            if not is_float(output):
                continue
            ending = _find_ending(graph.model.graph.outputs[index])
            axis = _class_axis(output, ending, wanted)
            if axis is not None and output.shape[axis] > 1:
                return scores_at(graph, index, axis, output.dim())
    return None


def scores_at(graph: Graph, index: int, axis: int, rank: int) -> Scores:
    """Scores in output number `index`, which has `rank` axes, the classes on `axis`."""
    ending = _find_ending(graph.model.graph.outputs[index])
    if ending is None or ending.axis(rank) not in (None, axis):
        return Scores(index, axis)
    source = ending.node.inputs[0]
    if ending.is_in_order and source is not None:
        return Scores(index, axis, logits=source.name)
    return Scores(index, axis, are_probabilities=not ending.gives_logarithms)


def _class_axis(output: torch.Tensor, ending: Ending | None, wanted: str) -> int | None:
    match wanted:
        case "softmax":
            return ending.axis(output.dim()) if ending and output.dim() >= _MATRIX else None
        case "classification":
            return 1 if output.dim() == _MATRIX else None
        case "segmentation":
            return 1 if output.dim() > _MATRIX else None
        case _:
            return None


def _find_ending(value: ir.Value) -> Ending | None:
    """The Softmax behind an output of the graph, None where something else made it."""
    passed: set[str] = set()
    source: ir.Value | None = value
    while source is not None and (node := source.producer()) is not None:
        if node.op_type in ("Softmax", "LogSoftmax"):
            return Ending(node, frozenset(passed))
        if node.op_type not in _IN_ORDER | _OUT_OF_ORDER:
            return None
        passed.add(node.op_type)
        source = node.inputs[0]
    return None
