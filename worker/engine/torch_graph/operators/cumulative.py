"""Running sums and products along an axis, and Det. Totals are in `reduction`."""

from collections.abc import Callable

import torch

from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_HALF = 2
"""Bytes of float16 and bfloat16."""


@operator("CumSum", "CumProd", host=(1,))
def cumulative(node: Node) -> Run:
    """`reverse` runs from the end; `exclusive` leaves each element itself out."""
    function: Callable[..., torch.Tensor] = torch.cumsum if node.op == "CumSum" else torch.cumprod
    first = 0 if node.op == "CumSum" else 1
    is_exclusive, is_reverse = node.get("exclusive", 0), node.get("reverse", 0)

    def accumulate(x: torch.Tensor, axis: int) -> torch.Tensor:
        if is_exclusive and x.shape[axis]:
            kept = x.narrow(axis, 0, x.shape[axis] - 1)
            start = torch.full_like(x.narrow(axis, 0, 1), first)
            x = torch.cat([start, kept], axis)
        return function(x, axis, dtype=x.dtype)

    def run(x: torch.Tensor, axis: int | list[int]) -> torch.Tensor:
        dim: int = as_scalar(axis)
        return accumulate(x.flip(dim), dim).flip(dim) if is_reverse else accumulate(x, dim)

    return on_bits(node, run)


@operator("Det")
def det(_: Node) -> Run:
    """Of the last two dimensions. Half precision has no factorization: it goes through float32."""

    def run(x: torch.Tensor) -> torch.Tensor:
        wide = x.float() if x.dtype.itemsize == _HALF else x
        determinant: torch.Tensor = torch.linalg.det(wide)
        return determinant.to(x.dtype)

    return run
