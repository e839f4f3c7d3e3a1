"""Losses that are part of a graph. Losses that training adds are not here."""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

REDUCTIONS = ("none", "sum", "mean")
NO_CLASS = -(2**63)
"""An `ignore_index` that no label has: torch would ignore -100 by default, ONNX ignores nothing."""
# The weights of the classes are fixed: torch has no derivative for them.


def _reduction(node: Node) -> tuple[int, str]:
    reduction = node.get("reduction", "mean")
    if reduction not in REDUCTIONS:
        raise node.refuse(f"reduction {reduction!r}", f"one of {', '.join(REDUCTIONS)}")
    return node.get("ignore_index", NO_CLASS), reduction


@operator("NegativeLogLikelihoodLoss", fixed=(2,))
def negative_log_likelihood(node: Node) -> Run:
    """-weight[label] * x[label]; the mean divides by the sum of the weights of labels that are not ignored."""
    ignored, reduction = _reduction(node)

    def run(x: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        return F.nll_loss(x, labels.long(), weight, ignore_index=ignored, reduction=reduction)

    return run


@operator("SoftmaxCrossEntropyLoss", fixed=(2,))
def softmax_cross_entropy(node: Node) -> Run:
    """The above on log softmax over dimension 1, which is the second output."""
    ignored, reduction = _reduction(node)

    def loss_alone(
        scores: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
    ) -> tuple[torch.Tensor]:
        return (F.cross_entropy(scores, labels.long(), weight, ignore_index=ignored, reduction=reduction),)

    def loss_and_log(
        scores: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        log = F.log_softmax(scores, dim=1)
        return F.nll_loss(log, labels.long(), weight, ignore_index=ignored, reduction=reduction), log

    return loss_and_log if node.wants(1) else loss_alone
