"""Tensors seen as whole numbers of the same width, for the types torch has few kernels for. No values are computed."""

from collections.abc import Mapping
from functools import wraps

import torch

from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run

_UNSIGNED: Mapping[torch.dtype, torch.dtype] = {
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.uint64: torch.int64,
}
_SAME_WIDTH: Mapping[torch.dtype, torch.dtype] = {
    **_UNSIGNED,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e4m3fnuz: torch.uint8,
    torch.float8_e5m2: torch.uint8,
    torch.float8_e5m2fnuz: torch.uint8,
    torch.float8_e8m0fnu: torch.uint8,
}


def on_bits(node: Node, run: Run) -> Run:
    """`run`, which only moves elements of its first input, for every type: those few kernels know go as whole numbers.

    Other inputs of the first one's type are taken along. Sums and products that wrap come out right too.
    """
    dtype = node.input_type(0)
    if dtype is not None and held_as(dtype) not in _SAME_WIDTH:
        return run

    @wraps(run)
    def run_on_bits(x: torch.Tensor, *others: object) -> torch.Tensor:
        seen = _SAME_WIDTH.get(x.dtype)
        if seen is None:
            return run(x, *others)  # type: ignore[no-any-return]  # a Run gives Any
        same = [y.view(seen) if isinstance(y, torch.Tensor) and y.dtype == x.dtype else y for y in others]
        return run(x.view(seen), *same).view(x.dtype)  # type: ignore[no-any-return]  # a Run gives Any

    return run_on_bits


def in_order(x: torch.Tensor) -> torch.Tensor:
    """`x`, wide unsigned numbers as signed ones in the same order: without kernels to compare, these have them."""
    signed = _UNSIGNED.get(x.dtype)
    return x if signed is None else x.view(signed) ^ torch.iinfo(signed).min
