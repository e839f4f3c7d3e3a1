"""What a call must be given: number, types and sizes of the graph's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.graph import shapes
from worker.engine.torch_graph.dtypes import HELD_AS


@dataclass(frozen=True)
class Declared:
    """An input as the graph declares it; None for what it leaves open."""

    name: str
    dtype: torch.dtype | None
    sizes: tuple[int | None, ...] | None


def declare(graph: ir.Graph) -> tuple[Declared, ...]:
    """The inputs that a caller feeds."""
    return tuple(_declared(value) for value in graph.inputs if not value.is_initializer())


def _declared(value: ir.Value) -> Declared:
    is_tensor = isinstance(value.type, ir.TensorType)
    dims = shapes.dims(value) if is_tensor else None
    sizes = None if dims is None else tuple(dim if isinstance(dim, int) else None for dim in dims)
    return Declared(value.name or "", HELD_AS.get(value.dtype) if is_tensor and value.dtype else None, sizes)


def check_inputs(declared: Sequence[Declared], given: Sequence[object]) -> None:
    """Raises SlimlineError INPUTS_MISMATCH, naming the input."""
    if len(declared) != len(given):
        names = ", ".join(each.name for each in declared)
        raise SlimlineError("INPUTS_MISMATCH", f"{len(given)} inputs were given for {len(declared)}: {names}")
    for each, tensor in zip(declared, given, strict=True):
        if isinstance(tensor, torch.Tensor):
            _check(each, tensor)
        elif each.dtype is not None:
            raise _mismatch(each, f"is {type(tensor).__name__}; the graph takes a tensor")


def _check(declared: Declared, tensor: torch.Tensor) -> None:
    if declared.dtype is not None and tensor.dtype is not declared.dtype:
        raise _mismatch(declared, f"is {tensor.dtype}; the graph takes {declared.dtype}")
    if declared.sizes is None:
        return
    fits = len(declared.sizes) == tensor.dim() and all(
        size is None or size == given for size, given in zip(declared.sizes, tensor.shape, strict=True)
    )
    if not fits:
        wanted = [size if size is not None else "any" for size in declared.sizes]
        raise _mismatch(declared, f"has shape {list(tensor.shape)}; the graph takes {wanted}")


def _mismatch(declared: Declared, what: str) -> SlimlineError:
    return SlimlineError("INPUTS_MISMATCH", f"input {declared.name!r} {what}", node=declared.name)
