"""Elements chosen by tensors of positions. Writing there is in `scattering.py`, choosing by value in `selection.py`."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator

_MATRIX = 2


def _count_from_front(indices: torch.Tensor, size: int) -> torch.Tensor:
    """Indices with negative ones counted from the end of an axis of `size`; those out of range stay so."""
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather")
def gather(node: Node) -> Run:
    """Slices of `axis`, in the shape of the indices. Fixed positions next to each other give a view."""
    axis, positions = node.get("axis", 0), node.constant(1)
    if isinstance(positions, int):
        return lambda x, _: x.select(axis, positions)
    if isinstance(positions, list) and _is_run(positions):
        return lambda x, _: x.narrow(axis, positions[0], len(positions))
    is_wrapped = positions is None or bool((np.asarray(positions) < 0).any())

    def run(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        if is_wrapped:
            indices = _count_from_front(indices, x.shape[axis])
        if axis == 0 and x.ndim == _MATRIX:
            return F.embedding(indices, x)
        if indices.ndim == 1:
            return x.index_select(axis, indices)
        place = axis % x.ndim
        taken = x.index_select(axis, indices.reshape(-1))
        return taken.reshape([*x.shape[:place], *indices.shape, *x.shape[place + 1 :]])

    return on_bits(node, run)


def _is_run(positions: list[Any]) -> bool:
    """Whether flat positions follow each other, all counted from the same end."""
    if not positions or isinstance(positions[0], list):
        return False
    first, last = positions[0], positions[-1]
    return positions == list(range(first, last + 1)) and (first >= 0 or last < 0)


@host_rule("Gather")
def gather_host(node: Node) -> Run | None:
    """Numbers of a vector, by number or by list."""
    if node.rank(0) != 1 or node.rank(1) not in (0, 1):
        return None
    return lambda x, at: [x[i] for i in at] if isinstance(at, list) else x[at]


@operator("GatherElements")
def gather_elements(node: Node) -> Run:
    """One element for each index, which stands for its own position but along `axis`."""
    axis = node.get("axis", 0)

    def run(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return x.gather(axis, _count_from_front(indices, x.shape[axis]).long())

    return on_bits(node, run)


@operator("GatherND")
def gather_nd(node: Node) -> Run:
    """Slices at index vectors, the last dimension of `indices`, apart for each of the first `batch_dims`."""
    batch_dims = node.get("batch_dims", 0)

    def run(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        behind = indices.ndim - 2
        batch = [
            torch.arange(x.shape[dim], device=x.device).reshape(-1, *[1] * (behind - dim)) for dim in range(batch_dims)
        ]
        return x[(*batch, *indices.unbind(-1))]

    return run


@operator("Compress")
def compress(node: Node) -> Run:
    """Slices of `axis`, or elements, where a condition holds, which may be shorter."""
    axis = node.get("axis")

    def run(x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        chosen = condition.nonzero().squeeze(1)
        return x.reshape(-1).index_select(0, chosen) if axis is None else x.index_select(axis, chosen)

    return on_bits(node, run)
