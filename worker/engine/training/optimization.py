"""Optimizers and what happens to their parameters around an update: decay, clipping, averaging. No data, no loss."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from app.contracts.training import TrainingOptions

_MOMENTUM = 0.9
_PARAMETRIZED = ".parametrizations."
_RAMP = 10


def is_matrix(shape: Iterable[int]) -> bool:
    """Whether more than one dimension is above 1: not a bias, a norm's scale or another vector in disguise."""
    return sum(size > 1 for size in shape) > 1


def make_optimizer(module: nn.Module, options: TrainingOptions, rate: float) -> torch.optim.Optimizer:
    """For what has gradients in `module`. Only matrices decay: no norms, no biases, no quantization scales."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_decayed = is_matrix(parameter.shape) and not (_PARAMETRIZED in name and is_scale(parameter))
            (decayed if is_decayed else spared).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    match options.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate)
        case "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=_MOMENTUM, nesterov=True)


def is_scale(parameter: torch.Tensor) -> bool:
    """Whether a parametrization marked it as a quantization scale."""
    return bool(getattr(parameter, "is_scale", False))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Clipper:
    """Keeps the norm of all gradients together at or below `most`."""

    def __init__(self, module: nn.Module, most: float | None) -> None:
        self._parameters = [each for each in module.parameters() if each.requires_grad]
        self._most = most

    def clip(self) -> None:
        """Scale the gradients down where they are too long."""
        if self._most is not None:
            clip_grad_norm_(self._parameters, self._most)


class Average:
    """Exponential moving average of tensors; the first updates count more, so that it forgets the start.

    `decay` is per update: min(decay, (1 + t) / (10 + t)) at update t.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], decay: float) -> None:
        self._decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def add(self, tensors: dict[str, torch.Tensor], update: int) -> None:
        """Take the tensors after `update`, counted from 1."""
        decay = min(self._decay, (1 + update) / (_RAMP + update))
        mine = list(self.tensors.values())
        theirs = [tensors[name].detach() for name in self.tensors]
        torch._foreach_lerp_(mine, theirs, 1 - decay)
