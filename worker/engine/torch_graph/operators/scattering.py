"""Copies of a tensor with other elements at positions that a tensor names. Reading positions is in `indexing.py`."""

from collections.abc import Mapping

import torch

from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.kernels.unsigned import ordered
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_REDUCTIONS: Mapping[str, str] = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
_COMPARING = frozenset({"max", "min"})


def _reduction(node: Node) -> str:
    reduction = str(node.get("reduction", "none"))
    if reduction != "none" and reduction not in _REDUCTIONS:
        raise node.refuse(f"reduction {reduction!r}", "use none, add, mul, max or min")
    return reduction


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Run:
    """Each update goes to its own position but along `axis`, where its index names it."""
    axis, reduction = node.get("axis", 0), _reduction(node)

    def run(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        size = x.shape[axis]
        positions = torch.where(indices < 0, indices + size, indices).long()
        return _scatter(x, axis, positions, updates, reduction)

    return _for_all_types(node, run, reduction)


def _scatter(
    x: torch.Tensor, axis: int, positions: torch.Tensor, updates: torch.Tensor, reduction: str
) -> torch.Tensor:
    if reduction == "none":
        return x.scatter(axis, positions, updates)
    return x.scatter_reduce(axis, positions, updates, _REDUCTIONS[reduction])


@operator("ScatterND")
def scatter_nd(node: Node) -> Run:
    """Updates go to the slices at index vectors, the last dimension of `indices`."""
    reduction = _reduction(node)

    def put(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        return x.index_put(indices.unbind(-1), updates, accumulate=reduction == "add")

    def reduce(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        outer = x.shape[: indices.shape[-1]]
        slices = x.reshape(outer.numel(), -1)
        numbered = torch.arange(outer.numel(), device=x.device).reshape(outer)
        positions = numbered[indices.unbind(-1)].reshape(-1, 1)
        flat = updates.reshape(-1, slices.shape[1])
        return _scatter(slices, 0, positions.expand(flat.shape), flat, reduction).reshape(x.shape)

    return _for_all_types(node, put if reduction in ("none", "add") else reduce, reduction)


def _for_all_types(node: Node, run: Run, reduction: str) -> Run:
    return ordered(node, run) if reduction in _COMPARING else on_bits(node, run)


@operator("TensorScatter")
def tensor_scatter(node: Node) -> Run:
    """A cache with `update` written behind `write_indices[b]` of sequence b; circular ones start over at the end."""
    axis, is_circular = node.get("axis", -2), node.get("mode", "linear") == "circular"

    def run(cache: torch.Tensor, update: torch.Tensor, starts_B: torch.Tensor | None = None) -> torch.Tensor:  # noqa: N803
        place = axis % cache.ndim
        steps = torch.arange(update.shape[place], device=cache.device)
        if starts_B is None:
            return cache.slice_scatter(update, place, 0, update.shape[place])
        position_BT = starts_B[:, None] + steps  # noqa: N806
        if is_circular:
            position_BT = position_BT % cache.shape[place]  # noqa: N806
        sizes = [1] * cache.ndim
        sizes[0], sizes[place] = position_BT.shape
        return cache.scatter(place, position_BT.reshape(sizes).expand(update.shape), update)

    return on_bits(node, run)
