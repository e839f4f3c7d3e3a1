"""Activations: functions of one element, some with a slope or a gate beside it. Softmax is in `softmax`."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels import unsigned
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_PLAIN: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
}
_SELU_ALPHA, _SELU_GAMMA = 1.6732632423543772, 1.0507009873554805
_SINGLE = 1e-6
"""Attributes are float32: they meet a constant of torch no closer than this."""


@operator(*_PLAIN)
def plain(node: Node) -> Run:
    """The function of that name."""
    return _PLAIN[node.op]


@operator("LeakyRelu")
def leaky_relu(node: Node) -> Run:
    """`x` where positive, `alpha * x` elsewhere."""
    slope = node.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@operator("PRelu")
def prelu(node: Node) -> Run:
    """`x` where positive, `slope * x` elsewhere. One slope per channel of NCHW has shape (C, 1, 1)."""

    def run(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        is_per_channel = slope.dim() == x.dim() - 1 and slope.shape[1:].numel() == 1 and slope.shape[:1] == x.shape[1:2]
        if is_per_channel and x.dtype.is_floating_point:
            return F.prelu(x, slope.reshape(-1))
        return torch.where(x > 0, x, slope * x)

    return unsigned.instead(node, run, lambda x, _: x)


@operator("Elu")
def elu(node: Node) -> Run:
    """`alpha * (exp(x) - 1)` where negative."""
    alpha = node.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@operator("Celu")
def celu(node: Node) -> Run:
    """`alpha * (exp(x / alpha) - 1)` where negative."""
    alpha = node.get("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@operator("Selu")
def selu(node: Node) -> Run:
    """`gamma * Elu(x)`; with the usual attributes torch's own (Klambauer et al., 2017)."""
    alpha, gamma = node.get("alpha", _SELU_ALPHA), node.get("gamma", _SELU_GAMMA)
    if math.isclose(alpha, _SELU_ALPHA, rel_tol=_SINGLE) and math.isclose(gamma, _SELU_GAMMA, rel_tol=_SINGLE):
        return F.selu
    return lambda x: gamma * F.elu(x, alpha)


@operator("HardSigmoid")
def hard_sigmoid(node: Node) -> Run:
    """`alpha * x + beta`, limited to 0 .. 1; torch's own has alpha = 1/6."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=_SINGLE) and beta == 1 / 2:
        return F.hardsigmoid
    return lambda x: (alpha * x + beta).clamp(0, 1)


@operator("ThresholdedRelu")
def thresholded_relu(node: Node) -> Run:
    """`x` where above `alpha`, else 0."""
    alpha = node.get("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0)


@operator("Shrink")
def shrink(node: Node) -> Run:
    """`x` moved toward 0 by `bias` where |x| > `lambd`, else 0. Whole numbers lose the fraction that comes in."""
    bias, limit = node.get("bias", 0.0), node.get("lambd", 0.5)

    def shrink_float(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, 0))

    def run(x: torch.Tensor) -> torch.Tensor:
        return shrink_float(x) if x.dtype.is_floating_point else shrink_float(x.double()).to(x.dtype)

    return run


@operator("Gelu")
def gelu(node: Node) -> Run:
    """`x * Phi(x)`, or its `tanh` approximation (Hendrycks and Gimpel, 2016)."""
    approximate = node.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("Swish")
def swish(node: Node) -> Run:
    """`x * sigmoid(alpha * x)`."""
    return _swish(node.get("alpha", 1.0))


@operator("SwiGLU")
def swiglu(node: Node) -> Run:
    """The gate's Swish times the value (Shazeer, 2020). Both have the same shape."""
    gate_of = _swish(node.get("alpha", 1.0))

    def run(gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if gate.shape != value.shape:
            raise ValueError(f"the gate has shape {list(gate.shape)}, the value {list(value.shape)}")
        return gate_of(gate) * value

    return run


def _swish(alpha: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return F.silu if alpha == 1 else lambda x: x * torch.sigmoid(alpha * x)
