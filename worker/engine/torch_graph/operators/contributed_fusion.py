"""What ONNX Runtime's optimizer fuses: products and convolutions with what follows them, and GELU in its forms."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.operators.convolution import conv
from worker.engine.torch_graph.operators.linear import gemm
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: Mapping[str, Callable[[Sequence[float]], Activation]] = {
    "Relu": lambda _: torch.relu,
    "Sigmoid": lambda _: torch.sigmoid,
    "Tanh": lambda _: torch.tanh,
    "LeakyRelu": lambda slope: lambda x: F.leaky_relu(x, slope[0]),
    "Clip": lambda bounds: lambda x: x.clamp(bounds[0], bounds[1]),
    "HardSigmoid": lambda line: lambda x: (x * line[0] + line[1]).clamp(0, 1),
}
"""The activation with its parameters."""
PARAMETERS: Mapping[str, int] = {"LeakyRelu": 1, "Clip": 2, "HardSigmoid": 2}
QUICK_ALPHA = 1.702


def _activation(node: Node, parameters: Sequence[float]) -> Activation:
    name = node.get("activation") or ""
    if name not in ACTIVATIONS or len(parameters) < PARAMETERS.get(name, 0):
        raise node.refuse(f"activation {name!r} with {len(parameters)} parameters", "run the model without this fusion")
    return ACTIVATIONS[name](parameters)


@operator("FusedConv", domain=MICROSOFT)
def fused_conv(node: Node) -> Run:
    """activation(Conv(x, weight, bias) + z)."""
    convolve = conv(node)
    activate = _activation(node, node.get("activation_params") or ()) if node.get("activation") else None

    def run(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, z: torch.Tensor | None = None
    ) -> torch.Tensor:
        y: torch.Tensor = convolve(x, weight, bias)
        y = y if z is None else y + z
        return y if activate is None else activate(y)

    return run


@operator("FusedGemm", domain=MICROSOFT)
def fused_gemm(node: Node) -> Run:
    """activation(alpha * A' B' + beta * C)."""
    names = ("activation_alpha", "activation_beta")
    multiply, activate = gemm(node), _activation(node, [node.get(name) for name in names if node.get(name) is not None])
    return lambda *inputs: activate(multiply(*inputs))


@operator("FusedMatMul", domain=MICROSOFT)
def fused_matmul(node: Node) -> Run:
    """A' B' times alpha. `transBatch` moves the first dimension behind the batch before `trans` turns the last two."""
    alpha = node.get("alpha", 1.0)
    turn_a = _turn(moves=bool(node.get("transBatchA", 0)), swaps=bool(node.get("transA", 0)))
    turn_b = _turn(moves=bool(node.get("transBatchB", 0)), swaps=bool(node.get("transB", 0)))

    def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = turn_a(a) @ turn_b(b)
        return y if alpha == 1 else y * alpha

    return run


def _turn(*, moves: bool, swaps: bool) -> Activation:
    def turn(x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 1:
            return x
        x = x.movedim(0, -2) if moves else x
        return x.transpose(-1, -2) if swaps else x

    return turn


@operator("Gelu", domain=MICROSOFT)
def gelu(_: Node) -> Run:
    """Every x times the normal distribution function of x (Hendrycks and Gimpel 2016)."""
    return F.gelu


@operator("BiasGelu", domain=MICROSOFT)
def bias_gelu(_: Node) -> Run:
    """GELU of x + bias."""
    return lambda x, bias: F.gelu(x + bias)


@operator("FastGelu", domain=MICROSOFT)
def fast_gelu(_: Node) -> Run:
    """GELU of x + bias by its approximation with tanh."""

    def run(x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.gelu(x if bias is None else x + bias, approximate="tanh")

    return run


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(node: Node) -> Run:
    """Sigmoid of alpha * x, times x."""
    alpha = node.get("alpha", QUICK_ALPHA)
    return lambda x: x * torch.sigmoid(x * alpha)


@operator("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(_: Node) -> Run:
    """The left half of x + bias times GELU of the right half."""

    def run(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        left, right = (x + bias).chunk(2, dim=-1)
        return left * F.gelu(right)

    return run
