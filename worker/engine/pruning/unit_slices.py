"""The slices of a network's weights that go with each unit: their norms, and scaling them. When is decided elsewhere.

Legend: U units.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.nn.utils import parametrize

from worker.engine.graph import Graph
from worker.engine.graph.channels import Group, Member
from worker.engine.graph.channels.masking import is_masked
from worker.engine.tensors import importance
from worker.engine.torch_graph import TorchGraph

_SCALE, _SHIFT = 1, 2
"""Inputs of BatchNormalization."""


def shrinkable(graph: Graph, groups: Sequence[Group], *, only_batch_norm: bool) -> list[Member]:
    """The stored dimensions whose slices are zero when units of `groups` are gone, each once."""
    found = {(member.constant, member.axis): member for group in groups for member in group.members}
    return [
        member
        for member in found.values()
        if is_masked(value := graph.initializer(member.constant)) and (not only_batch_norm or _is_batch_norm(value))
    ]


def find_without_batch_norm(graph: Graph, groups: Sequence[Group]) -> Group | None:
    """The first group whose units no BatchNormalization scales; None where there is one for each."""
    return next((group for group in groups if not shrinkable(graph, [group], only_batch_norm=True)), None)


def _is_batch_norm(value: ir.Value) -> bool:
    return any(node.op_type == "BatchNormalization" and index in (_SCALE, _SHIFT) for node, index in value.uses())


@dataclass(frozen=True)
class _Slices:
    """Slices along an axis of a weight, and the unit of each; U for none."""

    weight: torch.Tensor
    axis: int
    units: torch.Tensor

    def spread(self, factors: torch.Tensor) -> torch.Tensor:
        """Factors of units [U] as those of the slices, 1 where none is, in a shape that broadcasts to the weight."""
        shape = [1] * self.weight.dim()
        shape[self.axis] = -1
        padded = torch.cat([factors, factors.new_ones(1)])
        return padded[self.units].to(self.weight.dtype).reshape(shape)


class UnitSlices:
    """What of the weights of `student` that learn goes with each of `count` units, by `members` of its graph."""

    def __init__(self, student: TorchGraph, members: Sequence[Member], count: int) -> None:
        self._count = count
        self._slices = list(_find_slices(student, members, count))

    @property
    def device(self) -> torch.device | None:
        """Where the weights are; None without any."""
        return self._slices[0].weight.device if self._slices else None

    @torch.no_grad()
    def norms(self) -> torch.Tensor:
        """The Euclidean norm of all that goes with each unit, [U]."""
        squares = torch.zeros(self._count + 1, device=self.device)
        for each in self._slices:
            others = [axis for axis in range(each.weight.dim()) if axis != each.axis]
            energies = each.weight.float().square()
            squares.index_add_(0, each.units, energies.sum(others) if others else energies)
        return squares[: self._count].sqrt()

    @torch.no_grad()
    def scale(self, factors: torch.Tensor) -> None:
        """Multiply what goes with each unit, in place; `factors` [U]."""
        for each in self._slices:
            each.weight.mul_(each.spread(factors))

    @torch.no_grad()
    def scale_gradients(self, factors: torch.Tensor) -> None:
        """The same with gradients, where there are any."""
        for each in self._slices:
            if each.weight.grad is not None:
                each.weight.grad.mul_(each.spread(factors))


def norms_in(graph: Graph, members: Sequence[Member], count: int) -> torch.Tensor:
    """The norms of what is stored in a graph, [U], as `UnitSlices.norms` of all its weights."""
    squares = np.zeros(count + 1)
    for member in members:
        # units that are none are -1: they add to the last number, which is dropped
        np.add.at(squares, member.units, importance.l2(graph.array(member.constant), member.axis))
    return torch.from_numpy(np.sqrt(squares[:count])).float()


def _find_slices(student: TorchGraph, members: Sequence[Member], count: int) -> Iterator[_Slices]:
    for member in members:
        weight = _learning(*student.place(member.constant))
        if weight.requires_grad:
            units = torch.from_numpy(member.units).to(weight.device)
            yield _Slices(weight, member.axis, torch.where(units < 0, count, units))


def _learning(holder: nn.Module, leaf: str) -> torch.Tensor:
    """What learns of a weight: its float32 copy where it is of half precision."""
    if parametrize.is_parametrized(holder, leaf):
        original: torch.Tensor = holder.parametrizations[leaf].original0  # type: ignore[index,union-attr]  # torch
        return original
    weight: torch.Tensor = getattr(holder, leaf)
    return weight
