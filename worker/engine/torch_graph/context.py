"""`Context`: what a running node may know beyond its inputs: device, mode, weights, and the bounds of the call."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch

from app.contracts.failure import SlimlineError

MOST_ITERATIONS = 100_000
"""Bodies of Loop and Scan that one call may run."""
_LARGEST = 1 << 34


@dataclass
class Context:
    """One call of a TorchGraph."""

    device: torch.device
    is_training: bool
    weight: Callable[[int], torch.Tensor]
    """The weight with a number, as its parametrizations give it."""
    observers: Mapping[str, Mapping[int, Callable[[torch.Tensor], torch.Tensor | None]]] = field(default_factory=dict)
    iterations: int = 0

    def show(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Let the observers of `name` see a tensor; what one gives back takes its place."""
        for observer in list(self.observers.get(name, {}).values()):
            replaced = observer(tensor)
            tensor = tensor if replaced is None else replaced
        return tensor

    def count_iteration(self) -> None:
        """Raises SlimlineError LOOP_ENDLESS beyond MOST_ITERATIONS."""
        self.iterations += 1
        if self.iterations > MOST_ITERATIONS:
            raise SlimlineError(
                "LOOP_ENDLESS",
                f"loops ran over {MOST_ITERATIONS:,} iterations in one call",
                hint="give the Loop a trip count or a condition that ends",
            )


@cache
def most_bytes() -> int:
    """Bytes a single tensor made from numbers in the graph may have: 16 GiB, or half of the machine's memory."""
    return min(_LARGEST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


def check_size(shape: Sequence[int], dtype: torch.dtype) -> None:
    """Raises SlimlineError TENSOR_TOO_LARGE where a tensor of `shape` would be absurd. Call it before making one."""
    if torch.compiler.is_compiling():
        return
    size = math.prod(shape) * dtype.itemsize
    if size > most_bytes():
        raise SlimlineError(
            "TENSOR_TOO_LARGE",
            f"a tensor of shape {list(shape)} would take {size:,} bytes; up to {most_bytes():,} are made",
            hint="check the shapes that the graph computes",
        )
