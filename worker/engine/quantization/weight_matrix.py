"""A weight seen as a matrix of rows and columns, whatever its rank. No choice of layers, and no numbers are changed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from worker.engine.graph import Layer
from worker.engine.session import Array


@dataclass(frozen=True)
class WeightMatrix:
    """A weight and who reads it: `rows` and `columns` are its axes."""

    value: ir.Value
    readers: Sequence[Layer]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the initializer."""
        return self.value.name or ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the initializer."""
        return shape_of(self.value)

    @property
    def width(self) -> int:
        """Number of columns."""
        return math.prod(self.shape[axis] for axis in self.columns)

    def to_matrix(self, array: Array) -> torch.Tensor:
        """The weight as [rows, columns], a copy."""
        turned = array.transpose(*self.rows, *self.columns)
        return torch.from_numpy(turned.reshape(-1, self.width).copy())

    def from_matrix(self, matrix: torch.Tensor) -> Array:
        """The way back; where there is one column for each block, the axis of the columns is as long as that."""
        lengths = [self.shape[axis] for axis in self.rows]
        columns = [self.shape[axis] for axis in self.columns] if matrix.shape[1] == self.width else [matrix.shape[1]]
        back = sorted(range(len(lengths) + len(columns)), key=[*self.rows, *self.columns].__getitem__)
        return matrix.cpu().numpy().reshape(*lengths, *columns).transpose(back)


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """Of an initializer. Raises ValueError where it has none."""
    if value.shape is None:
        raise ValueError(f"{value.name} has no shape")
    return tuple(value.shape.numpy())
