"""LpNormalization and MeanVarianceNormalization: vectors brought to length or variance 1. They have no parameters."""

import torch

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_EPSILON = 1e-9
"""Beside the standard deviation, as in ONNX's own function body."""


@operator("LpNormalization")
def lp_normalization(node: Node) -> Run:
    """`x` over its norm along `axis`; a vector of zeros stays."""
    p, axis = node.get("p", 2), node.get("axis", -1)

    def run(x: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, 1, norm)

    return run


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node) -> Run:
    """Mean 0 and variance 1 over `axes`."""
    axes = node.get("axes", [0, 2, 3])

    def run(x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) / (variance.sqrt() + _EPSILON)

    return run
