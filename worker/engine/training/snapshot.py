"""The tensors that a training changes: weights, learned projections and running statistics, taken and put back."""

from collections.abc import Mapping

import torch

from worker.engine.training.objective.objective import Objective

Tensors = dict[str, torch.Tensor]


def trained_tensors(objective: Objective) -> Tensors:
    """What moves by gradients, and the statistics of normalizations; by name, as they lie in the module."""
    parameters = {name: each for name, each in objective.named_parameters() if each.requires_grad}
    statistics = {
        f"student.{name}": each for name, each in objective.student.named_buffers() if each.is_floating_point()
    }
    return {**parameters, **statistics}


def take(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """A copy on the CPU."""
    return {name: each.detach().to("cpu", copy=True) for name, each in tensors.items()}


@torch.no_grad()
def put_back(tensors: Mapping[str, torch.Tensor], snapshot: Mapping[str, torch.Tensor]) -> None:
    """Copy `snapshot` into `tensors`, in place. Raises KeyError where one is missing."""
    for name, each in tensors.items():
        each.copy_(snapshot[name])
