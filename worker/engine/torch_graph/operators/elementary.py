"""Elementary functions of one element: signs, roots, exponentials, trigonometry. Activations are in `activation`."""

from collections.abc import Callable, Mapping

import torch

from worker.engine.torch_graph.kernels import unsigned
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_FUNCTIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # half to even
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


@operator(*_FUNCTIONS)
def elementary(node: Node) -> Run:
    """The function of that name."""
    return _FUNCTIONS[node.op]


@operator("Abs")
def absolute(node: Node) -> Run:
    """Unsigned numbers are their own."""
    return unsigned.instead(node, torch.abs, lambda x: x)


@operator("Sign")
def sign(node: Node) -> Run:
    """-1, 0 or 1; 0 for NaN."""
    return unsigned.instead(node, torch.sign, lambda x: (x != 0).to(x.dtype))
