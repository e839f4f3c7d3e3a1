"""Running statistics of BatchNormalization, estimated again for the weights as they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
import torch

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch

_MOMENTUM = 0.9
_MEAN, _VARIANCE = 3, 4


@dataclass(frozen=True)
class _Statistic:
    """A buffer, and the share of a batch's own value that one call in training mode moves it by."""

    tensor: torch.Tensor
    pace: float


class BatchNorms:
    """The normalizations of `student` that use the batch while it trains."""

    def __init__(self, graph: Graph, student: TorchGraph) -> None:
        self._student = student
        self._statistics = [
            _Statistic(getattr(*student.place(value.name or "")), pace)
            for node in graph.nodes()
            if node.op_type == "BatchNormalization" and (pace := 1 - _momentum(node)) > 0
            for value in (node.inputs[_MEAN], node.inputs[_VARIANCE])
            if value is not None and value.is_initializer()
        ]

    def __len__(self) -> int:
        return len(self._statistics)

    @torch.no_grad()
    def estimate(self, batches: Iterator[TrainingBatch]) -> None:
        """Set every statistic to its mean over `batches`; without any, they stay."""
        sums = [torch.zeros_like(each.tensor) for each in self._statistics]
        count, was_training = 0, self._student.training
        self._student.train()
        for batch in batches:
            for each in self._statistics:
                each.tensor.zero_()  # so that what the call leaves is `pace` times the batch's own
            self._student(*batch.inputs)
            torch._foreach_add_(sums, [each.tensor / each.pace for each in self._statistics])
            count += 1
        self._student.train(was_training)
        for total, each in zip(sums, self._statistics, strict=True):
            if count:
                each.tensor.copy_(total / count)


def _momentum(node: ir.Node) -> float:
    return node.attributes["momentum"].as_float() if "momentum" in node.attributes else _MOMENTUM
