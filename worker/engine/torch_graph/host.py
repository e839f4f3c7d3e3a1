"""Values as Python numbers: how they become tensors and back. The rules to compute with them are in `operators/`."""

from typing import Any

import onnx_ir as ir
import torch

from worker.engine.torch_graph.context import Context
from worker.engine.torch_graph.dtypes import held_as

HOST_TYPES = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})
MOST_ELEMENTS = 64
"""Constants up to this size count as shape arithmetic; larger ones are data."""


def promotion(dtype: ir.DataType) -> Any:
    """The function (context, number or list) -> tensor of `dtype` on the call's device."""
    held = held_as(dtype)

    def promote(context: Context, numbers: Any) -> torch.Tensor:
        if _is_symbolic(numbers):
            return _stack(numbers, held, context.device)
        return torch.tensor(numbers, dtype=held, device=context.device)

    return promote


def read(tensor: torch.Tensor | None) -> Any:
    """A tensor as Python numbers: waits for the device, and ends a compiled graph."""
    return tensor.tolist() if isinstance(tensor, torch.Tensor) else tensor


def _is_symbolic(numbers: Any) -> bool:
    if isinstance(numbers, list):
        return any(_is_symbolic(number) for number in numbers)
    return isinstance(numbers, torch.SymInt | torch.SymBool)


def _stack(numbers: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """torch.tensor would fix the symbolic sizes of a traced graph to those of the example."""
    if isinstance(numbers, list):
        return torch.stack([_stack(number, dtype, device) for number in numbers])
    return torch.scalar_tensor(numbers, dtype=dtype, device=device)


def as_scalar(numbers: Any) -> Any:
    """The number itself, or the only one of a list, which files often hold instead. Raises ValueError for several."""
    while isinstance(numbers, list):
        (numbers,) = numbers
    return numbers


def as_list(numbers: Any) -> list[Any]:
    """The list itself, or a list of the one number."""
    return numbers if isinstance(numbers, list) else [numbers]
