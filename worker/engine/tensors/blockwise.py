"""Weights in blocks that share a scale and a zero point: fitting, rounding, packing. No graph, no choice of layers.

Codes are whole numbers from 0 up, in floating tensors. Legend: B blocks of a row, G groups of
rows with the same inputs, K columns, R rows, S columns of a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray

from worker.engine.tensors.affine import SMALLEST_SCALE

_SHARES: Mapping[int, Sequence[float]] = {4: [1 - 0.02 * i for i in range(21)], 8: [1.0]}
"""Of the widest range, the shares that are tried: with 8 bits, clipping costs more than the finer steps bring."""
_BYTE = 8


@dataclass(frozen=True)
class Grid:
    """How finely weights are rounded: `block_size` neighbouring columns of a row share one scale."""

    bits: int
    symmetric: bool
    block_size: int

    @property
    def highest(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The code that stands for 0 in a symmetric grid."""
        return 1 << (self.bits - 1)

    def count_blocks(self, columns: int) -> int:
        """Blocks of a row; the last one may be short."""
        return -(-columns // self.block_size)


@dataclass(frozen=True)
class Blocks:
    """The scale and the zero point of each block, both [R, B]."""

    grid: Grid
    scale: torch.Tensor
    zero: torch.Tensor

    def spread(self, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Both for each column, [R, K]."""
        scale, zero = (each.repeat_interleave(self.grid.block_size, 1)[:, :columns] for each in (self.scale, self.zero))
        return scale, zero

    def encode(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest codes of weights, both [R, K]."""
        scale, zero = self.spread(weight.shape[1])
        return (weight / scale).round().add(zero).clamp(0, self.grid.highest)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes stand for, [R, K], as DequantizeLinear has it."""
        scale, zero = self.spread(codes.shape[1])
        return (codes - zero) * scale


def fit(weight: torch.Tensor, grid: Grid, importance: torch.Tensor | None = None) -> Blocks:
    """The range of each block with the least squared error; `weight` is [R, K], finite.

    Weights count by `importance`, [R, K], such as E[x^2] of their inputs; alike in a row where it is all 0. Ranges hold
    0, so that it stays exact. Scales are float32 numbers, in the type of the weight.
    """
    pieces, counting = _cut(weight, grid), torch.ones_like(weight[:1])
    if importance is not None:
        largest = importance.amax(1, keepdim=True)
        counting = torch.where(largest > 0, importance / largest, 1).to(weight.dtype)
    counting = _cut(counting, grid)
    low, high = pieces.amin(-1).clamp(max=0), pieces.amax(-1).clamp(min=0)
    if grid.symmetric:
        high = torch.maximum(-low, high)
        low = -high
    best = _blocks(low, high, grid)
    least = torch.full_like(low, torch.inf)
    for share in _SHARES[grid.bits]:
        tried = _blocks(low * share, high * share, grid)
        error = ((_round_in(tried, pieces) - pieces).square() * counting).sum(-1)
        is_better = error < least
        scale = torch.where(is_better, tried.scale, best.scale)
        best = Blocks(grid, scale, torch.where(is_better, tried.zero, best.zero))
        least = torch.where(is_better, error, least)
    return best


def output_error(delta: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """The mean squared error of each row's output, [R], for a change of its weights, [R, K].

    `hessian` is E[x x^T] of the inputs of each of G equal groups of rows, [G, K, K].
    """
    grouped = delta.reshape(len(hessian), -1, delta.shape[1])
    return (grouped @ hessian * grouped).sum(2).flatten()


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis in bytes, the first in the lowest bits; a byte begun is filled with zeros."""
    each = _BYTE // bits
    filled = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % each)])
    shifted = filled.reshape(*filled.shape[:-1], -1, each) << (bits * np.arange(each, dtype=np.uint8))
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(shifted, -1).astype(np.uint8)
    return packed


def _cut(matrix: torch.Tensor, grid: Grid) -> torch.Tensor:
    """[R, K] as [R, B, S]; zeros where the last block is short."""
    padded = F.pad(matrix, (0, -matrix.shape[1] % grid.block_size))
    return padded.reshape(matrix.shape[0], -1, grid.block_size)


def _blocks(low: torch.Tensor, high: torch.Tensor, grid: Grid) -> Blocks:
    """Halves keep the width of the widest float32 range from overflowing.

    A block of zeros has the smallest scale: the noise that ONNX Runtime's 8-bit kernel adds grows with the scale.
    """
    scale = ((high / 2 - low / 2) * (2 / grid.highest)).float().to(low.dtype).clamp(min=SMALLEST_SCALE)
    zero = torch.full_like(scale, grid.middle) if grid.symmetric else (-low / scale).round().clamp(0, grid.highest)
    return Blocks(grid, scale, zero)


def _round_in(blocks: Blocks, pieces: torch.Tensor) -> torch.Tensor:
    """What the nearest codes stand for, [R, B, S]."""
    scale, zero = blocks.scale.unsqueeze(-1), blocks.zero.unsqueeze(-1)
    return ((pieces / scale).round().add(zero).clamp(0, blocks.grid.highest) - zero) * scale
