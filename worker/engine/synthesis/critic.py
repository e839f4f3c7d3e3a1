"""`Critic`: how unlike real inputs a batch is, judged by what a graph makes of it. Improving it is `distill`."""

from collections.abc import Sequence
from functools import partial

import onnx_ir as ir
import torch
from torch import nn

from worker.engine.graph import Graph
from worker.engine.session import Device
from worker.engine.synthesis.divergence import from_centred, from_stored, moments
from worker.engine.synthesis.targets import Target
from worker.engine.torch_graph import TorchGraph

_CONFIDENCE = 0.1
"""Weight of the cross-entropy against labels drawn evenly."""
_SCORES_RANK, _FEWEST_CLASSES = 2, 2
_LEAST_PROBABILITY = 1e-12


class Critic:
    """Runs `graph` with torch and judges what flows through it at `targets`."""

    def __init__(self, graph: Graph, targets: Sequence[Target], device: Device) -> None:
        """Raises SlimlineError for a graph that torch cannot run."""
        self._module = TorchGraph(graph).requires_grad_(requires_grad=False).to(device)
        self._losses: list[torch.Tensor] = []
        for target in targets:
            stored = [torch.from_numpy(each).to(device) for each in target.stored or ()]
            self._module.observe(target.tensor, partial(self._see, target.axis, stored))
        self.classes = _classes(graph)
        self.can_judge = bool(targets) or self.classes is not None
        self._gives_probabilities = _maker(graph) == "Softmax"

    def judge(self, inputs: Sequence[torch.Tensor], labels: torch.Tensor | None) -> torch.Tensor:
        """The loss of a batch, a scalar of at least 0: the mean over targets, and the confidence wanted for `labels`.

        Infinite where the graph made NaN. Raises SlimlineError where the graph does not run on these inputs.
        """
        self._losses.clear()
        outputs = self._module(*inputs)
        loss = torch.stack(self._losses).mean() if self._losses else torch.zeros(())
        self._losses.clear()
        if labels is not None and len(outputs[0]) == len(labels):
            loss = loss.to(outputs[0].device) + _CONFIDENCE * self._surprise(outputs[0].float(), labels)
        return torch.where(loss.isnan(), torch.inf, loss)

    def _see(self, axis: int, stored: Sequence[torch.Tensor], values: torch.Tensor) -> None:
        if values.numel():
            found = moments(values, axis)
            self._losses.append(from_stored(*found, *stored) if stored else from_centred(*found))

    def _surprise(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = scores.clamp(min=_LEAST_PROBABILITY).log() if self._gives_probabilities else scores
        return nn.functional.cross_entropy(logits, labels)


def _classes(graph: Graph) -> int | None:
    """The number of classes of a classifier: a graph with one output, [N, classes] in floating point, no Sigmoid."""
    if len(graph.outputs) != 1 or _maker(graph) == "Sigmoid":
        return None
    spec = graph.outputs[0]
    classes = spec.shape[-1] if len(spec.shape) == _SCORES_RANK else None
    is_floating = ir.DataType[spec.dtype.upper()].is_floating_point()
    return classes if isinstance(classes, int) and classes >= _FEWEST_CLASSES and is_floating else None


def _maker(graph: Graph) -> str | None:
    """The operator that gives the first output."""
    node = graph.model.graph.outputs[0].producer()
    return node.op_type if node is not None else None
