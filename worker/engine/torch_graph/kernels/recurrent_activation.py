"""The activations that LSTM, GRU and RNN name in their attributes. Activations that are nodes are elsewhere."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.node import Node

Activation = Callable[[torch.Tensor], torch.Tensor]

ACTIVATIONS: Mapping[str, Callable[[float, float], Activation]] = {
    "relu": lambda _, __: torch.relu,
    "tanh": lambda _, __: torch.tanh,
    "sigmoid": lambda _, __: torch.sigmoid,
    "softsign": lambda _, __: F.softsign,
    "softplus": lambda _, __: F.softplus,
    "affine": lambda alpha, beta: lambda x: alpha * x + beta,
    "leakyrelu": lambda alpha, _: lambda x: F.leaky_relu(x, alpha),
    "thresholdedrelu": lambda alpha, _: lambda x: torch.where(x >= alpha, x, 0),
    "scaledtanh": lambda alpha, beta: lambda x: alpha * torch.tanh(beta * x),
    "hardsigmoid": lambda alpha, beta: lambda x: (alpha * x + beta).clamp(0, 1),
    "elu": lambda alpha, _: lambda x: F.elu(x, alpha),
}
"""By lower-case name, made from alpha and beta."""
HIDDEN = 2
"""Place of the function that makes LSTM's hidden state from its cell: ONNX Runtime does not clip what goes in there."""
_ALPHA = {
    "affine": None,
    "leakyrelu": 0.01,
    "thresholdedrelu": None,
    "scaledtanh": None,
    "hardsigmoid": 0.2,
    "elu": 1.0,
}
_BETA = {"affine": None, "scaledtanh": None, "hardsigmoid": 0.5}
"""Those that take one, with its default. ONNX Runtime has others than ONNX, or ONNX none, where it is None."""


def read_activations(node: Node, defaults: Sequence[str], directions: int) -> list[str]:
    """Lower-case names, one list behind the other for two directions. Raises SlimlineError for unknown ones."""
    names = [name.lower() for name in node.get("activations") or [*defaults] * directions]
    unknown = [name for name in names if name not in ACTIVATIONS]
    if unknown:
        raise node.refuse(f"activation {unknown[0]!r}", f"one of {', '.join(ACTIVATIONS)}")
    needed = len(defaults) * directions
    if len(names) != needed and (needed, names) != (1, ["tanh", "tanh"]):  # RNN's default, also for one direction
        raise node.refuse(f"{len(names)} activations", f"{needed} are needed")
    return names[:needed]


def make_activations(node: Node, names: Sequence[str], count: int) -> list[Activation]:
    """The functions, `count` for each direction; those of gates come after the clip.

    Alphas and betas are consumed in order by the functions that take one.
    """
    clip = node.get("clip")
    if clip is not None and clip <= 0:
        raise node.refuse(f"clip {clip}", "a threshold is positive; leave it out for none")
    alphas, betas = _consume(node, "activation_alpha", names, _ALPHA), _consume(node, "activation_beta", names, _BETA)
    functions = [ACTIVATIONS[name](alpha, beta) for name, alpha, beta in zip(names, alphas, betas, strict=True)]
    if clip is None:
        return functions
    return [each if place % count == HIDDEN else _clipped(each, clip) for place, each in enumerate(functions)]


def _clipped(function: Activation, clip: float) -> Activation:
    return lambda x: function(x.clamp(-clip, clip))


def _consume(node: Node, attribute: str, names: Sequence[str], takes: Mapping[str, float | None]) -> list[float]:
    given = list(node.get(attribute) or [])
    takers = [place for place, name in enumerate(names) if name in takes]
    if len(given) > len(takers) and [given[place] for place in takers if place < len(given)] != given[: len(takers)]:
        raise node.refuse(f"{attribute} has {len(given)} values for {len(takers)} activations that take one")
    values = [0.0] * len(names)
    for number, place in enumerate(takers):
        value = given[number] if number < len(given) else takes[names[place]]
        if value is None:
            raise node.refuse(f"{names[place]} without {attribute}", "ONNX has no default for it")
        values[place] = value
    return values
