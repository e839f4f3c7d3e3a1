"""Softmax, LogSoftmax and Hardmax: one vector at a time becomes a distribution."""

from collections.abc import Callable, Mapping
from functools import partial

import torch

from worker.engine.torch_graph.kernels.half_precision import HALVES, rounds_each_step, stepwise_softmax
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator


def _hardmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """1 at the first of the largest, 0 elsewhere."""
    if x.numel() == 0:
        return x
    return torch.zeros_like(x).scatter(dim, x.argmax(dim, keepdim=True), 1)


_FUNCTIONS: Mapping[str, Callable[..., torch.Tensor]] = {
    "Softmax": torch.softmax,
    "LogSoftmax": torch.log_softmax,
    "Hardmax": _hardmax,
}
_ALONG_ONE_AXIS = 13


@operator(*_FUNCTIONS)
def softmax(node: Node) -> Run:
    """Along `axis`; before opset 13 over all axes from `axis` on, as one."""
    function = _in_half(node) if node.op == "Softmax" and node.input_type(0) in HALVES else _FUNCTIONS[node.op]
    if node.version >= _ALONG_ONE_AXIS:
        return partial(function, dim=node.get("axis", -1))
    axis, rank = node.get("axis", 1), node.rank(0)
    if rank is not None and axis in (-1, rank - 1):
        return partial(function, dim=-1)

    def run(x: torch.Tensor) -> torch.Tensor:
        if axis == x.dim():  # vectors of one element
            return function(x.unsqueeze(-1), dim=-1).squeeze(-1)
        return function(x.flatten(axis), dim=-1).view(x.shape)

    return run


def _in_half(node: Node) -> Callable[..., torch.Tensor]:
    declared = node.input_type(0)

    def function(x: torch.Tensor, dim: int) -> torch.Tensor:
        return stepwise_softmax(x, dim) if rounds_each_step(x, declared) else torch.softmax(x, dim)

    return function
